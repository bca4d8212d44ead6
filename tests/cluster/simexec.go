// Commands in simulated pods: what a kubelet does for `kubectl exec`. Nothing runs; a pod's annotations say how
// the command ends:
//
//	sim.stoker.dev/exec-code: "0"       its exit code; 1 unless told
//	sim.stoker.dev/exec-stdout: idle    what it prints
//	sim.stoker.dev/exec-after: 3s       how long it takes
//
// It runs within the kwok part, at the address that all simulated nodes have.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	streaming "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	simExecPort     = 10350
	simExecCode     = "sim.stoker.dev/exec-code"
	simExecStdout   = "sim.stoker.dev/exec-stdout"
	simExecAfter    = "sim.stoker.dev/exec-after"
	simExecDeadline = time.Minute
)

// serveExec serves commands in simulated pods until the context ends.
func serveExec(ctx context.Context, pods corelisters.PodLister, cert, key string) error {
	mux := http.NewServeMux()
	run := func(w http.ResponseWriter, r *http.Request) {
		pod, err := pods.Pods(r.PathValue("namespace")).Get(r.PathValue("pod"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if pod.Status.Phase != corev1.PodRunning {
			http.Error(w, fmt.Sprintf("pod %s is %s", pod.Name, pod.Status.Phase), http.StatusBadRequest)
			return
		}
		options, err := streaming.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		streaming.ServeExec(w, r, simulatedCommand{pod}, pod.Name, string(pod.UID), r.PathValue("container"),
			r.URL.Query()["command"], options, simExecDeadline, simExecDeadline,
			streaming.SupportedStreamingProtocols)
	}
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", run)
	mux.HandleFunc("/exec/{namespace}/{pod}/{uid}/{container}", run)
	server := &http.Server{Addr: fmt.Sprintf("%s:%d", simNodeIP, simExecPort), Handler: mux}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	err := server.ListenAndServeTLS(cert, key)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// simulatedCommand ends as its pod's annotations say.
type simulatedCommand struct{ pod *corev1.Pod }

func (c simulatedCommand) ExecInContainer(
	ctx context.Context, _, _, _ string, _ []string,
	_ io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan streaming.TerminalSize, _ time.Duration,
) error {
	said := c.pod.Annotations
	if after, err := time.ParseDuration(said[simExecAfter]); err == nil {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, err := io.WriteString(out, said[simExecStdout]); err != nil {
		return err
	}
	code := 1
	if number, err := strconv.Atoi(said[simExecCode]); err == nil {
		code = number
	}
	if code == 0 {
		return nil
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
}
