// The supervisor: a daemon that starts the parts in order, restarts one that ends, and relays the
// API server's port to the host. It writes its state to disk, so that `down` can do without it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
)

const (
	startLimit      = 90 * time.Second // for one part, on a machine that compiles meanwhile
	firstBackOff    = 250 * time.Millisecond
	longestBackOff  = 10 * time.Second
	steadyRun       = 30 * time.Second // a part that ran this long starts again without back-off
	failureLogLines = 15
)

type supervisor struct {
	layout layout
	ports  ports
	inside *inside
	client kubernetes.Interface

	lock  sync.Mutex
	state state
	quit  bool
}

func supervise(l layout, args []string) error {
	flags := flag.NewFlagSet("supervise", flag.ContinueOnError)
	simNodes := flags.Int("sim-nodes", 3, "")
	wantReal := flags.Bool("real-node", true, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	me, _ := identify(os.Getpid())
	s := &supervisor{layout: l, state: state{
		Phase: phaseStarting, Supervisor: me, Parts: map[string]partState{}, WantReal: *wantReal,
	}}
	s.save("starting")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)

	started := make(chan error, 1)
	go func() { started <- s.start(*simNodes) }()
	select {
	case err := <-started:
		if err != nil {
			logf("failed: %v", err)
			s.killParts()
			s.lock.Lock()
			s.state.Phase = phaseFailed
			s.lock.Unlock()
			s.save(err.Error())
			return err
		}
	case <-stop:
		s.killParts()
		return errors.New("stopped while starting")
	}
	s.lock.Lock()
	s.state.Phase = phaseReady
	s.lock.Unlock()
	s.save("")
	logf("ready")
	<-stop
	logf("stopping")
	s.killParts()
	return nil
}

// save writes the state; message says what is waited for, or what failed.
func (s *supervisor) save(message string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.state.Message = message
	if err := writeState(s.layout.stateFile(), &s.state); err != nil {
		logf("cannot write the state: %v", err)
	}
}

func (s *supervisor) start(simNodes int) error {
	l := s.layout
	if err := ensurePKI(l); err != nil {
		return err
	}
	root := os.Geteuid() == 0
	if root {
		if err := createNamespace(l); err != nil {
			return fmt.Errorf("making the network namespace: %w", err)
		}
		var err error
		if s.inside, err = enterNamespace(l); err != nil {
			return err
		}
	}
	var err error
	if s.ports, err = choosePorts(l, root); err != nil {
		return err
	}
	s.lock.Lock()
	s.state.Port, s.state.InNetns = s.ports.api, root
	s.lock.Unlock()
	if err := writeKubeconfigs(l, s.ports.api); err != nil {
		return err
	}
	realNote := "REAL_NODE=0"
	runc := ""
	if s.state.WantReal {
		runc, realNote = realNodePossible(l)
	}
	if err := writeConfigs(l, runc); err != nil {
		return err
	}
	if s.client, err = newClient(l.partConfig("supervisor")); err != nil {
		return err
	}
	if root {
		listener, err := net.Listen("tcp4", loopback(s.ports.api))
		if err != nil {
			return fmt.Errorf("the API server's port on the host was taken meanwhile, run it again: %w", err)
		}
		go relay(listener, s.inside, s.ports.api)
	}

	control := s.controlPlane()
	if err := s.startAll(control[:1]); err != nil {
		return err
	}
	if err := s.startAll(control[1:2]); err != nil {
		return err
	}
	var node chan error
	if realNote == "" {
		node = make(chan error, 1)
		go func() { node <- s.startRealNode() }()
	}
	if err := s.startAll(control[2:]); err != nil {
		return err
	}
	if err := s.growSimulated(simNodes); err != nil {
		return err
	}
	if err := s.await("default service account", startLimit, s.serviceAccountExists); err != nil {
		return err
	}
	logf("the control plane and %d simulated nodes work", simNodes)
	if node == nil {
		s.lock.Lock()
		s.state.Note = realNote
		s.lock.Unlock()
		logf("no real node: %s", realNote)
		return nil
	}
	if err := <-node; err != nil {
		return err
	}
	s.lock.Lock()
	s.state.RealNode = true
	s.lock.Unlock()
	return nil
}

// startAll starts parts together and waits until each works.
func (s *supervisor) startAll(specs []spec) error {
	results := make(chan error, len(specs))
	for _, part := range specs {
		go func() { results <- s.startPart(part) }()
	}
	for range specs {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

// startPart starts one part, waits until it works, and hands it over to keep.
func (s *supervisor) startPart(part spec) error {
	cmd, err := s.launch(part, 0)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready := make(chan error, 1)
	go func() {
		if part.ready == nil {
			ready <- nil
			return
		}
		ready <- s.await(part.name+": "+part.waits, startLimit, func(context.Context) error { return part.ready(ctx) })
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("%s ended while starting (%v); its last lines (%s):\n%s",
			part.name, err, s.layout.logFile(part.name), lastLines(s.layout.logFile(part.name), failureLogLines))
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("%s does not work: %w; its last lines (%s):\n%s",
				part.name, err, s.layout.logFile(part.name), lastLines(s.layout.logFile(part.name), failureLogLines))
		}
	}
	go s.keep(part, ended)
	return nil
}

// keep starts the part again whenever it ends: tests kill parts, and expect them back.
func (s *supervisor) keep(part spec, ended chan error) {
	backOff, restarts, since := firstBackOff, 0, time.Now()
	for {
		err := <-ended
		if s.quitting() {
			return
		}
		if time.Since(since) > steadyRun {
			backOff = firstBackOff
		}
		logf("%s ended (%v); it starts again in %v", part.name, err, backOff)
		time.Sleep(backOff)
		backOff = min(2*backOff, longestBackOff)
		if s.quitting() {
			return
		}
		restarts++
		since = time.Now()
		cmd, err := s.launch(part, restarts)
		if err != nil {
			logf("%v", err)
			ended <- err
			continue
		}
		go func() { ended <- cmd.Wait() }()
	}
}

func (s *supervisor) quitting() bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.quit
}

// launch starts a part's process inside the namespace and records it.
func (s *supervisor) launch(part spec, restarts int) (*exec.Cmd, error) {
	log, err := os.OpenFile(s.layout.logFile(part.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(part.exe, part.args...)
	cmd.Env = append(partEnvironment(s.layout), part.env...)
	cmd.Dir = s.layout.path("data")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.quit {
		return nil, fmt.Errorf("%s: not started, the cluster is stopping", part.name)
	}
	if err := s.inside.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", part.name, err)
	}
	id, _ := identify(cmd.Process.Pid)
	s.state.Parts[part.name] = partState{process: id, Restarts: restarts}
	if err := writeState(s.layout.stateFile(), &s.state); err != nil {
		logf("cannot write the state: %v", err)
	}
	return cmd, nil
}

// killParts ends everything at once: nothing of it is kept, so nothing has to be saved.
func (s *supervisor) killParts() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.quit = true
	for _, part := range s.state.Parts {
		part.signal(syscall.SIGKILL)
	}
}

// await asks again and again until check passes, and says what it waits for when that takes long.
func (s *supervisor) await(what string, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begin, said := time.Now(), false
	for {
		err := check(ctx)
		if err == nil {
			logf("%s: yes, after %.1f s", what, time.Since(begin).Seconds())
			return nil
		}
		if !said && time.Since(begin) > time.Second {
			said = true
			logf("waiting for %s …", what)
			s.save("waiting for " + what)
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		}
		if s.quitting() {
			return errors.New("stopped meanwhile")
		}
		time.Sleep(50 * time.Millisecond)
	}
}
