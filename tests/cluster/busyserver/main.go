// busy-server is a small HTTP workload for tests: it is busy or idle as it is told, and can say so
// by its answer, by its readiness and in an annotation of its own pod.
//
//	GET  /busy        200 while busy, 503 while idle
//	POST /busy /idle  flip it
//	GET  /readyz      200, or 503 while busy with UNREADY_WHEN_BUSY=1
//	POST /exit?code=n end with that code
//
// Environment: PORT (8080), UNREADY_WHEN_BUSY=1, FLIP_AFTER=5s and IDLE_AFTER=5s (flip by itself that
// long after the start, and after having become busy), SELF_ANNOTATE=key (keep that annotation of pod
// POD_NAMESPACE/POD_NAME at "true" or "false"; its service account must be allowed to patch pods).
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// server holds the state; flips are applied one after the other, annotation included, so that the
// annotation never ends up at an older state than the answer.
type server struct {
	mu            sync.Mutex
	busy          bool
	idleTimer     *time.Timer
	idleAfter     time.Duration
	unreadyIfBusy bool
	annotate      func(busy bool) error
}

func (s *server) set(busy bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idleTimer != nil {
		s.idleTimer.Stop()
		s.idleTimer = nil
	}
	s.busy = busy
	if busy && s.idleAfter > 0 {
		s.idleTimer = time.AfterFunc(s.idleAfter, func() { s.setByItself(false) })
	}
	if s.annotate == nil {
		return nil
	}
	return s.annotate(busy)
}

func (s *server) setByItself(busy bool) {
	if err := s.set(busy); err != nil {
		log.Printf("turning busy=%t: %v", busy, err)
	}
}

func (s *server) isBusy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	flip := func(busy bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := s.set(busy); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			fmt.Fprintln(w, word(busy))
		}
	}
	mux.HandleFunc("POST /busy", flip(true))
	mux.HandleFunc("POST /idle", flip(false))
	mux.HandleFunc("GET /busy", func(w http.ResponseWriter, _ *http.Request) {
		busy := s.isBusy()
		if !busy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, word(busy))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.unreadyIfBusy && s.isBusy() {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /exit", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil || code < 0 || code > 255 {
			http.Error(w, "give ?code=0..255", http.StatusBadRequest)
			return
		}
		log.Printf("told to exit with %d", code)
		os.Exit(code)
	})
	return mux
}

func word(busy bool) string {
	if busy {
		return "busy"
	}
	return "idle"
}

// podAnnotator returns a function that patches this pod's annotation through the API server.
func podAnnotator(key string) (func(busy bool) error, error) {
	name, namespace := os.Getenv("POD_NAME"), os.Getenv("POD_NAMESPACE")
	if name == "" || namespace == "" {
		return nil, errors.New("SELF_ANNOTATE needs POD_NAME and POD_NAMESPACE (fieldRef metadata.name and metadata.namespace)")
	}
	authority, err := os.ReadFile(serviceAccount + "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("SELF_ANNOTATE needs a mounted service account: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	url := fmt.Sprintf("https://%s/api/v1/namespaces/%s/pods/%s",
		net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")), namespace, name)
	return func(busy bool) error {
		// Read each time: the kubelet replaces the token before it expires.
		token, err := os.ReadFile(serviceAccount + "token")
		if err != nil {
			return err
		}
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"annotations": map[string]string{key: strconv.FormatBool(busy)},
		}})
		if err != nil {
			return err
		}
		request, err := http.NewRequest(http.MethodPatch, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/merge-patch+json")
		request.Header.Set("Authorization", "Bearer "+string(token))
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("annotating my pod: %s: %s", response.Status, answer)
		}
		_, _ = io.Copy(io.Discard, response.Body) // so that the connection is used again
		return nil
	}, nil
}

func duration(name string) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		log.Fatalf("%s=%q: give a duration such as 5s", name, text)
	}
	return d
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	s := &server{idleAfter: duration("IDLE_AFTER"), unreadyIfBusy: os.Getenv("UNREADY_WHEN_BUSY") == "1"}
	if key := os.Getenv("SELF_ANNOTATE"); key != "" {
		annotate, err := podAnnotator(key)
		if err != nil {
			log.Fatal(err)
		}
		s.annotate = annotate
		s.setByItself(false)
	}
	if after := duration("FLIP_AFTER"); after > 0 {
		time.AfterFunc(after, func() { s.setByItself(true) })
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	web := &http.Server{Addr: ":" + port, Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = web.Shutdown(ctx)
		os.Exit(0)
	}()
	log.Printf("listening on %s", web.Addr)
	if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	select {} // the handler of the signal ends the program
}
