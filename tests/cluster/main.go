// stoker-cluster runs a real Kubernetes on one machine, for tests and demos: etcd, the control
// plane, simulated nodes and, as root, one real node. This file only finds the command to run.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const usage = `stoker-cluster runs a real Kubernetes on this machine.

  up [--sim-nodes N] [--real-node=true|false]   start it, or add simulated nodes to a running one
  down                                          stop it and clean up, also after a crash
  status                                        what runs, where its logs are
  exec [--] COMMAND [ARG...]                    run a command inside the cluster's network
  kubectl [ARG...]                              kubectl against this cluster
  images list                                   what the real node has
  images import FILE.tar...                     hand image archives to the real node
  images build NAME [--entrypoint PATH] [--env K=V] --file HOST:PATH[:MODE]...
                                                make an archive from files and import it
  cron N                                        the next N instants by Kubernetes' own library for each
                                                line SCHEDULE|ZONE|AFTER of stdin; needs no cluster
  kstatus                                       what the library kstatus says of the object on stdin, as
                                                JSON; needs no cluster

The kubeconfig is kubeconfig in the cluster's folder (the folder above the binary's, or
$STOKER_CLUSTER_DIR); it works from the host and inside the cluster's network.
`

// exitCode lets a command end with a code of its own, without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(runOwnKubectl(os.Args[1:]))
	}
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	name, args := os.Args[1], os.Args[2:]
	if part, ok := parts[name]; ok && name != "kubectl" {
		os.Exit(part(args))
	}
	if name == "kubectl" {
		os.Exit(runOwnKubectl(args))
	}
	commands := map[string]func(layout, []string) error{
		"up": up, "down": down, "status": status, "exec": execInside, "images": images, "supervise": supervise,
		"cron": cronAnswers, "kstatus": judge,
	}
	command, ok := commands[name]
	if !ok {
		fmt.Fprint(os.Stderr, usage)
		if name == "help" || name == "-h" || name == "--help" {
			return
		}
		fmt.Fprintf(os.Stderr, "\nstoker-cluster: there is no command %q\n", name)
		os.Exit(2)
	}
	l, err := findLayout()
	if err == nil {
		err = command(l, args)
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "stoker-cluster %s: %v\n", name, err)
		os.Exit(1)
	}
}

// runOwnKubectl is kubectl with this cluster as the default one.
func runOwnKubectl(args []string) int {
	if os.Getenv("KUBECONFIG") == "" {
		if l, err := findLayout(); err == nil {
			os.Setenv("KUBECONFIG", l.kubeconfig())
		}
	}
	return runKubectl(args)
}
