// The cluster's own network namespace: made with `ip`, entered thread by thread. Nothing outside it
// is touched, so any number of clusters and whatever the host listens on stay out of each other's way.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const bridgeName = "node0" // carries the node's address; there is no dummy device on small kernels

func createNamespace(l layout) error {
	ns := l.namespace()
	steps := [][]string{
		{"netns", "add", ns},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "link", "add", bridgeName, "type", "bridge"},
		{"-n", ns, "addr", "add", nodeCIDR, "dev", bridgeName},
		// All simulated nodes share one address; commands in their pods are served there.
		{"-n", ns, "addr", "add", simNodeIP + "/32", "dev", bridgeName},
		{"-n", ns, "link", "set", bridgeName, "up"},
		// Service addresses need a route before the firewall rewrites them; there is no way out.
		{"-n", ns, "route", "add", "default", "dev", bridgeName},
	}
	for _, args := range steps {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	inside, err := enterNamespace(l)
	if err != nil {
		return err
	}
	defer inside.close()
	// /proc/sys/net shows the namespace of the thread that opens it.
	return inside.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	})
}

func deleteNamespace(l layout) error {
	if _, err := os.Stat(l.namespacePath()); os.IsNotExist(err) {
		return nil
	}
	if out, err := exec.Command("ip", "netns", "delete", l.namespace()).CombinedOutput(); err != nil {
		return fmt.Errorf("ip netns delete %s: %w: %s", l.namespace(), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// inside is one OS thread that lives in a namespace; what do runs there, and so do the sockets and
// child processes that it makes. A nil inside runs everything where the caller is.
type inside struct {
	jobs chan func()
}

func enterNamespace(l layout) (*inside, error) {
	file, err := os.Open(l.namespacePath())
	if err != nil {
		return nil, fmt.Errorf("the cluster's network namespace is missing: %w", err)
	}
	n := &inside{jobs: make(chan func())}
	entered := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so no other goroutine gets it.
		runtime.LockOSThread()
		err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		file.Close()
		entered <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("entering network namespace %s: %w", l.namespace(), err)
	}
	return n, nil
}

func (n *inside) do(work func() error) error {
	if n == nil {
		return work()
	}
	done := make(chan error)
	n.jobs <- func() { done <- work() }
	return <-done
}

func (n *inside) dial(address string) (*net.TCPConn, error) {
	var conn net.Conn
	err := n.do(func() (err error) {
		conn, err = net.Dial("tcp4", address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func (n *inside) close() {
	if n != nil {
		close(n.jobs)
	}
}
