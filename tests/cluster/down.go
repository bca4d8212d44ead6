// Taking a cluster away: its processes, containers, mounts and namespace, whether it ended properly
// or was killed. Only what this cluster recorded or what lies in its own folders is touched.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const stopLimit = 10 * time.Second

func down(l layout, _ []string) error {
	unlock, err := lock(l)
	if err != nil {
		return err
	}
	defer unlock()
	begin := time.Now()
	if err := cleanUp(l); err != nil {
		return err
	}
	fmt.Printf("down after %.1f s; binaries, images and logs stay in %s\n", time.Since(begin).Seconds(), l.dir)
	return nil
}

// cleanUp is idempotent, and goes on as far as it can.
func cleanUp(l layout) error {
	var problems []error
	note := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	s, err := readState(l.stateFile())
	note(err)
	if s != nil {
		note(stopRecorded(s))
	}
	if os.Geteuid() == 0 {
		note(stopContainers(l))
		note(unmountBelow(l.path("data"), l.short()))
		note(deleteNamespace(l))
		removeTraces(l)
		note(os.RemoveAll(l.short()))
	}
	note(os.RemoveAll(l.path("data")))
	if len(problems) > 0 {
		return fmt.Errorf("cleaning up: %w; try again, or look at it by hand", errors.Join(problems...))
	}
	if err := os.Remove(l.stateFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stopRecorded ends the supervisor first (it would restart the parts), then what it left.
func stopRecorded(s *state) error {
	s.Supervisor.signal(syscall.SIGTERM)
	if !s.Supervisor.waitGone(stopLimit) {
		s.Supervisor.signal(syscall.SIGKILL)
		s.Supervisor.waitGone(stopLimit)
	}
	for _, part := range s.Parts {
		part.signal(syscall.SIGKILL)
	}
	var left []string
	for name, part := range s.Parts {
		if !part.waitGone(stopLimit) {
			left = append(left, fmt.Sprintf("%s (pid %d)", name, part.PID))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("still there after SIGKILL: %s", strings.Join(left, ", "))
	}
	return nil
}

// stopContainers ends containers by way of their cgroups, and then the shims that looked after them.
func stopContainers(l layout) error {
	const containerdNamespace = "k8s.io"
	root := filepath.Join(l.short(), "runc", containerdNamespace)
	containers, _ := os.ReadDir(root)
	runc, err := exec.LookPath("runc")
	if err != nil && len(containers) > 0 {
		return fmt.Errorf("containers are left in %s, and runc is missing: %w", root, err)
	}
	for _, container := range containers {
		out, err := exec.Command(runc, "--root", root, "delete", "--force", container.Name()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("runc delete %s: %w: %s", container.Name(), err, strings.TrimSpace(string(out)))
		}
		removeMatches("/var/lib/cni/results/*-" + container.Name() + "-*")
	}
	shims := processesOf(l.bin("containerd-shim-runc-v2"))
	for _, shim := range shims {
		shim.signal(syscall.SIGKILL)
	}
	for _, shim := range shims {
		if !shim.waitGone(stopLimit) {
			return fmt.Errorf("shim %d does not end", shim.PID)
		}
	}
	return nil
}

// processesOf finds processes by the exact file they run, one of this cluster's own binaries: shims
// are started by containerd, so nobody recorded them.
func processesOf(exe string) []process {
	var found []process
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		target, err := os.Readlink(link)
		// A rebuilt binary leaves the running one with this ending.
		if err != nil || strings.TrimSuffix(target, " (deleted)") != exe {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if p, ok := identify(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

func unmountBelow(dirs ...string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, point := range mountsBelow(string(table), dirs) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
	return nil
}

// mountsBelow returns the mount points below dirs, the innermost first.
func mountsBelow(mountinfo string, dirs []string) []string {
	// The kernel writes spaces and such in octal.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for _, line := range strings.Split(mountinfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape.Replace(fields[4])
		for _, dir := range dirs {
			if strings.HasPrefix(point, dir+"/") {
				points = append(points, point)
			}
		}
	}
	sort.SliceStable(points, func(i, j int) bool { return len(points[i]) > len(points[j]) })
	return points
}

// removeTraces deletes what the kubelet and the CNI library leave in folders that cannot be chosen.
func removeTraces(l layout) {
	removeMatches("/var/lib/cni/results/" + l.id + "-*")
	// Others may have containers there, too; a folder that is not empty stays.
	removeMatches("/sys/fs/cgroup/*/k8s.io")
	links, _ := filepath.Glob("/var/log/containers/*.log")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, l.path("data")+"/") {
			_ = os.Remove(link)
		}
	}
}

func removeMatches(pattern string) {
	matches, _ := filepath.Glob(pattern)
	for _, match := range matches {
		_ = os.Remove(match)
	}
}
