// The real node: whether this machine can have one, and starting it.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// realNodePossible returns runc's path, or why there can be no real node.
func realNodePossible(l layout) (runc, reason string) {
	if os.Geteuid() != 0 {
		return "", "that takes root"
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return "", "runc is missing (hack/setup.sh cluster installs it)"
	}
	for _, program := range []string{"nft", "ip", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", program + " is missing (hack/setup.sh cluster installs it)"
		}
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		if _, err := os.Stat(l.bin(name)); err != nil {
			return "", l.bin(name) + " is missing (hack/setup.sh cluster builds it)"
		}
	}
	if _, err := os.Stat("/usr/lib/cni/ptp"); err != nil {
		if _, err := os.Stat("/opt/cni/bin/ptp"); err != nil {
			return "", "the CNI plugins are missing (hack/setup.sh cluster installs them)"
		}
	}
	if _, err := findBusybox(); err != nil {
		return "", err.Error()
	}
	if err := tryRunc(l, runc); err != nil {
		return "", fmt.Sprintf("runc cannot run a container here: %v", err)
	}
	return runc, ""
}

// tryRunc runs one container that only ends: many sandboxes have runc and forbid what it needs.
func tryRunc(l layout, runc string) error {
	busybox, err := findBusybox()
	if err != nil {
		return err
	}
	bundle := l.data("runc-trial")
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs", "bin"), 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "rootfs", "bin", "busybox"), program, 0o755); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "rootfs"},
		"process": map[string]any{
			"args": []string{"/bin/busybox", "true"}, "cwd": "/", "user": map[string]int{"uid": 0, "gid": 0},
		},
		"mounts": []map[string]string{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux": map[string]any{"namespaces": []map[string]string{
			{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"},
		}},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		return err
	}
	cmd := exec.Command(runc, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, l.id+"-trial")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

func (s *supervisor) startRealNode() error {
	parts := s.nodeParts()
	if err := os.MkdirAll(s.layout.short(), 0o711); err != nil {
		return err
	}
	if err := s.startPart(parts[0]); err != nil {
		return err
	}
	files, err := standardImages(s.layout)
	if err != nil {
		return fmt.Errorf("building images: %w", err)
	}
	for _, file := range files {
		if err := s.inside.do(func() error { return importImage(s.layout, file) }); err != nil {
			return err
		}
	}
	logf("images: %d imported", len(files))
	for _, part := range parts[1:] {
		if err := s.startPart(part); err != nil {
			return err
		}
	}
	return nil
}

func findBusybox() (string, error) {
	// Only the static one works in an image of its own; Debian installs either under this name.
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", errors.New("busybox is missing (hack/setup.sh cluster installs busybox-static)")
	}
	return path, nil
}
