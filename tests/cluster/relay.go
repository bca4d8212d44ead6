// The way from the host to the API server inside the namespace: a plain TCP relay on a loopback
// port. The API server listens on the same port inside, so one kubeconfig serves both places.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// choosePort returns the remembered port if it is free, else a new one, and remembers it.
func choosePort(l layout) (int, error) {
	if data, err := os.ReadFile(l.portFile()); err == nil {
		if port, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			if listener, err := net.Listen("tcp4", loopback(port)); err == nil {
				listener.Close()
				return port, nil
			}
		}
	}
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	return port, writeFileAtomically(l.portFile(), []byte(strconv.Itoa(port)+"\n"), 0o644)
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp4", loopback(0))
	if err != nil {
		return 0, fmt.Errorf("no free port on the loopback device: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// relay accepts on the host and passes each connection on to the same port inside.
func relay(listener net.Listener, inside *inside, port int) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				logf("relay: %v", err)
			}
			return
		}
		go func() {
			outer := conn.(*net.TCPConn)
			inner, err := inside.dial(loopback(port))
			if err != nil {
				outer.Close() // the API server is away; clients retry a closed connection
				return
			}
			join(outer, inner)
		}()
	}
}

// join copies both ways and passes an end of stream on as such: the other direction may still have
// an answer on its way. Go sets TCP_NODELAY by itself and lets the kernel move the bytes.
func join(a, b *net.TCPConn) {
	var both sync.WaitGroup
	half := func(to, from *net.TCPConn) {
		defer both.Done()
		if _, err := io.Copy(to, from); err != nil {
			// A broken direction ends the connection: neither side could use the rest.
			to.Close()
			from.Close()
			return
		}
		_ = to.CloseWrite()
	}
	both.Add(2)
	go half(a, b)
	go half(b, a)
	both.Wait()
	a.Close()
	b.Close()
}
