// Where everything of one cluster lives: folders, addresses, the name of its network namespace.
// Two checkouts never share any of it, because the names carry a hash of the folder.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Addresses are the same in every cluster: each has a network namespace of its own.
const (
	nodeIP       = "10.123.0.1"
	nodeCIDR     = "10.123.0.1/24"
	realPodCIDR  = "10.123.4.0/22"
	simPodCIDR   = "10.124.0.1/16"
	simNodeIP    = "10.123.1.1"
	serviceCIDR  = "10.125.0.0/16"
	serviceIP    = "10.125.0.1" // of the Service kubernetes: the first address of serviceCIDR
	realNodeName = "real"
)

// layout derives every path from the cluster's folder.
type layout struct {
	dir string // e.g. target/cluster, absolute
	id  string // distinguishes clusters on one machine
}

func findLayout() (layout, error) {
	dir := os.Getenv("STOKER_CLUSTER_DIR")
	if dir == "" {
		exe, err := os.Executable()
		if err != nil {
			return layout{}, fmt.Errorf("cannot find my own binary: %w; set STOKER_CLUSTER_DIR", err)
		}
		dir = filepath.Dir(filepath.Dir(exe))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, err
	}
	// The kernel names running programs by their real paths; so do we.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return newLayout(dir), nil
}

func newLayout(dir string) layout {
	sum := sha256.Sum256([]byte(dir))
	return layout{dir: dir, id: "stoker-" + hex.EncodeToString(sum[:3])}
}

func (l layout) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

func (l layout) kubeconfig() string         { return l.path("kubeconfig") }
func (l layout) bin(name string) string     { return l.path("bin", name) }
func (l layout) pki(name string) string     { return l.path("pki", name) }
func (l layout) data(name string) string    { return l.path("data", name) }
func (l layout) logFile(name string) string { return l.path("logs", name+".log") }
func (l layout) auditLog() string           { return l.path("logs", "audit.log") }
func (l layout) stateFile() string          { return l.path("run", "state.json") }
func (l layout) portFile() string           { return l.path("port") }

// gate is where `make gate` puts it, beside the cluster's folder.
func (l layout) gate() string { return filepath.Join(l.dir, "..", "gate", "amd64", "stoker-gate") }

// short is a folder for unix sockets, whose paths may have no more than 107 bytes: a checkout can
// be deeper than that.
func (l layout) short() string { return "/run/" + l.id }

func (l layout) containerdSocket() string { return l.short() + "/containerd.sock" }
func (l layout) namespace() string        { return l.id }
func (l layout) namespacePath() string    { return "/run/netns/" + l.id }

// partConfig is the name of the kubeconfig that a part uses.
func (l layout) partConfig(part string) string { return l.pki(part + ".kubeconfig") }
