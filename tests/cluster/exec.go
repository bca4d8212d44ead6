// `exec`: a command inside the cluster's network, in the caller's place: same environment, same
// terminal, and its exit code is ours.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func execInside(l layout, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("give a command to run")
	}
	s, err := readState(l.stateFile())
	if err != nil {
		return err
	}
	if s == nil || !s.Supervisor.alive() {
		return errors.New("the cluster is down; make cluster-up starts it")
	}
	if os.Getenv("KUBECONFIG") == "" {
		os.Setenv("KUBECONFIG", l.kubeconfig())
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "stoker-cluster exec: %v\n", err)
		return exitCode(127)
	}
	if s.InNetns {
		file, err := os.Open(l.namespacePath())
		if err != nil {
			return fmt.Errorf("the cluster's network namespace: %w", err)
		}
		// A process that replaces this one keeps the namespace of the thread that calls exec.
		runtime.LockOSThread()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering the cluster's network (are you root?): %w", err)
		}
	}
	return fmt.Errorf("running %s: %w", program, syscall.Exec(program, args, os.Environ()))
}
