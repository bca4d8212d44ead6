// `up` and `status`: start the supervisor as a daemon and tell what it waits for, or find that the
// cluster runs already.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func up(l layout, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	simNodes := flags.Int("sim-nodes", 3, "how many simulated nodes")
	wantReal := flags.Bool("real-node", true, "whether to have a real node, too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *simNodes < 0 || *simNodes > 1000 {
		return fmt.Errorf("--sim-nodes %d: give 0 to 1000", *simNodes)
	}
	unlock, err := lock(l)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := readState(l.stateFile())
	if err != nil {
		return err
	}
	if s != nil && s.Supervisor.alive() && s.Phase == phaseReady {
		return reuse(l, s, *simNodes, *wantReal)
	}
	if s != nil {
		fmt.Println("cleaning up after a cluster that did not end properly …")
	}
	if err := cleanUp(l); err != nil {
		return err
	}
	return daemonise(l, *simNodes, *wantReal)
}

// reuse serves an `up` on a running cluster.
func reuse(l layout, s *state, simNodes int, wantReal bool) error {
	client, err := newClient(l.partConfig("supervisor"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for readyz(ctx, client) != nil {
		fmt.Println("the API server is restarting …")
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster runs, but its API server does not answer; see %s, or take it down", l.logFile("kube-apiserver"))
		case <-time.After(time.Second):
		}
	}
	if wantReal && !s.WantReal {
		return errors.New("the running cluster has no real node and cannot get one; take it down first (make cluster-down)")
	}
	if err := ensureSimulated(ctx, client, simNodes); err != nil {
		return err
	}
	for i := range simNodes {
		for nodeReady(ctx, client, simulatedName(i)) != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("simulated node %s does not get Ready; see %s", simulatedName(i), l.logFile("kwok"))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	if s.RealNode {
		if err := refreshGate(l, importImage); err != nil {
			return err
		}
	}
	fmt.Println("the cluster runs already")
	summary(l, s)
	return nil
}

// daemonise starts the supervisor in a session of its own and follows its log until it is ready.
func daemonise(l layout, simNodes int, wantReal bool) error {
	for _, dir := range []string{"run", "logs", "data"} {
		if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := rotateLogs(l); err != nil {
		return err
	}
	log, err := os.Create(l.logFile("supervisor"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(l.bin("stoker-cluster"), "supervise",
		fmt.Sprintf("--sim-nodes=%d", simNodes), fmt.Sprintf("--real-node=%t", wantReal))
	cmd.Env = append(partEnvironment(l), "STOKER_CLUSTER_DIR="+l.dir)
	cmd.Dir = l.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	begin := time.Now()
	follow := follower{file: l.logFile("supervisor")}
	for {
		over := false
		select {
		case <-ended:
			over = true
		case <-time.After(100 * time.Millisecond):
		}
		follow.print()
		s, err := readState(l.stateFile())
		switch {
		case err != nil:
			return err
		case s != nil && s.Supervisor.PID == cmd.Process.Pid && s.Phase == phaseReady && !over:
			fmt.Printf("up after %.1f s\n", time.Since(begin).Seconds())
			summary(l, s)
			return nil
		case over:
			if err := cleanUp(l); err != nil {
				logf("cleaning up: %v", err)
			}
			return fmt.Errorf("the cluster did not start, see above; all logs are in %s", l.path("logs"))
		}
	}
}

// rotateLogs keeps one older generation: the logs of a crashed cluster are worth having.
func rotateLogs(l layout) error {
	logs, err := filepath.Glob(l.path("logs", "*.log"))
	if err != nil {
		return err
	}
	for _, file := range logs {
		if err := os.Rename(file, strings.TrimSuffix(file, ".log")+".old"); err != nil {
			return err
		}
	}
	return nil
}

// follower prints what was added to a file since it last looked.
type follower struct {
	file   string
	offset int64
}

func (f *follower) print() {
	file, err := os.Open(f.file)
	if err != nil {
		return
	}
	defer file.Close()
	if _, err := file.Seek(f.offset, 0); err != nil {
		return
	}
	n, _ := file.WriteTo(os.Stdout)
	f.offset += n
}

func summary(l layout, s *state) {
	if s.RealNode {
		fmt.Printf("real node: %s (label stoker.dev/node=real, taint stoker.dev/node=real:NoSchedule)\n", realNodeName)
	} else {
		fmt.Printf("no real node: %s\n", s.Note)
	}
	fmt.Printf("kubeconfig: %s (API server 127.0.0.1:%d)\n", l.kubeconfig(), s.Port)
}

func status(l layout, _ []string) error {
	s, err := readState(l.stateFile())
	if err != nil {
		return err
	}
	if s == nil || !s.Supervisor.alive() {
		fmt.Println("the cluster is down")
		if s != nil {
			fmt.Println("its last one did not end properly; `up` and `down` clean up")
		}
		return exitCode(1)
	}
	fmt.Printf("%s %s\n", s.Phase, s.Message)
	fmt.Printf("%-24s %8d\n", "supervisor", s.Supervisor.PID)
	var names []string
	for name := range s.Parts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		part := s.Parts[name]
		note := ""
		if !part.alive() {
			note = "  not running"
		}
		if part.Restarts > 0 {
			note += fmt.Sprintf("  restarted %d times", part.Restarts)
		}
		fmt.Printf("%-24s %8d  %s%s\n", name, part.PID, l.logFile(name), note)
	}
	summary(l, s)
	fmt.Printf("audit log: %s\n", l.auditLog())
	return nil
}

// lock serialises up and down; a second caller waits.
func lock(l layout) (unlock func(), err error) {
	if err := os.MkdirAll(l.path("run"), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(l.path("run", "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Println("waiting for another up or down …")
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			return nil, err
		}
	}
	return func() { file.Close() }, nil
}
