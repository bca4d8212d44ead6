// Which parts a cluster has, with what arguments, and how each shows that it works.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// spec is one part: a process that the supervisor keeps alive.
type spec struct {
	name  string
	exe   string
	args  []string
	env   []string
	ready func(ctx context.Context) error // nil: running is enough
	waits string                          // what ready looks at, for people
}

// ports are the loopback ports of a cluster; inside a namespace the usual ones are always free.
type ports struct {
	api, etcd, etcdPeer, controllers, scheduler, kwok int
}

func choosePorts(l layout, inNamespace bool) (ports, error) {
	api, err := choosePort(l)
	if err != nil {
		return ports{}, err
	}
	p := ports{api: api, etcd: 2379, etcdPeer: 2380, controllers: 10257, scheduler: 10259, kwok: 10247}
	if inNamespace {
		return p, nil
	}
	for _, port := range []*int{&p.etcd, &p.etcdPeer, &p.controllers, &p.scheduler, &p.kwok} {
		if *port, err = freePort(); err != nil {
			return ports{}, err
		}
	}
	return p, nil
}

func (s *supervisor) controlPlane() []spec {
	l, p, self := s.layout, s.ports, s.layout.bin("stoker-cluster")
	simulation := []string{"STOKER_REAP=" + l.partConfig("kwok")}
	nodePort := []string{}
	if s.inside != nil {
		simulation = append(simulation,
			"STOKER_EXEC_CERT="+l.pki("simulated-serving.crt"), "STOKER_EXEC_KEY="+l.pki("simulated-serving.key"))
		nodePort = []string{fmt.Sprintf("--node-port=%d", simExecPort)}
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", p.etcd)
	bind := "0.0.0.0"
	advertise := []string{"--advertise-address=" + nodeIP}
	if s.inside == nil {
		// Without a namespace there is only the loopback device, which no endpoint may name.
		bind, advertise = "127.0.0.1", []string{"--endpoint-reconciler-type=none"}
	}
	return []spec{
		{
			name: "etcd", exe: self,
			args:  []string{"etcd", l.data("etcd"), etcd, fmt.Sprintf("http://127.0.0.1:%d", p.etcdPeer)},
			ready: s.httpOK(etcd + "/health"), waits: "/health",
		},
		{
			name: "kube-apiserver", exe: self,
			args: append([]string{"kube-apiserver",
				"--etcd-servers=" + etcd,
				"--bind-address=" + bind,
				fmt.Sprintf("--secure-port=%d", p.api),
				"--tls-cert-file=" + l.pki("apiserver.crt"), "--tls-private-key-file=" + l.pki("apiserver.key"),
				"--client-ca-file=" + l.pki("ca.crt"),
				"--cert-dir=" + l.data("apiserver"),
				"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
				"--service-account-signing-key-file=" + l.pki("service-accounts.key"),
				"--service-account-key-file=" + l.pki("service-accounts.pub"),
				"--service-cluster-ip-range=" + serviceCIDR,
				"--authorization-mode=Node,RBAC",
				"--allow-privileged=true",
				"--kubelet-preferred-address-types=InternalIP",
				"--kubelet-certificate-authority=" + l.pki("ca.crt"),
				"--kubelet-client-certificate=" + l.pki("apiserver-to-kubelet.crt"),
				"--kubelet-client-key=" + l.pki("apiserver-to-kubelet.key"),
				"--audit-policy-file=" + l.config("audit-policy.yaml"),
				"--audit-log-path=" + l.auditLog(),
				// Blocking: once a client has its answer, a test finds the request in the file.
				"--audit-log-mode=blocking", "--audit-log-maxsize=100", "--audit-log-maxbackup=3",
				"--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
				"--profiling=false",
			}, advertise...),
			// With Go's default a fifth of its processor time is collecting garbage, which on a small machine
			// everything else here waits for, and delays that are measured are so much longer. When it has the
			// memory of the limit it collects more often.
			env:   []string{"GOGC=400", "GOMEMLIMIT=3GiB"},
			ready: s.readyz, waits: "/readyz",
		},
		{
			name: "kube-controller-manager", exe: self,
			args: []string{"kube-controller-manager",
				"--kubeconfig=" + l.partConfig("kube-controller-manager"),
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", p.controllers),
				"--cert-dir=" + l.data("controller-manager"),
				"--root-ca-file=" + l.pki("ca.crt"),
				"--service-account-private-key-file=" + l.pki("service-accounts.key"),
				"--cluster-signing-cert-file=" + l.pki("ca.crt"), "--cluster-signing-key-file=" + l.pki("ca.key"),
				"--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000", "--profiling=false",
				"--concurrent-job-syncs=20", "--concurrent-gc-syncs=40",
			},
			ready: s.httpOK(fmt.Sprintf("https://127.0.0.1:%d/healthz", p.controllers)), waits: "/healthz",
		},
		{
			name: "kube-scheduler", exe: self,
			args: []string{"kube-scheduler",
				"--config=" + l.config("scheduler.yaml"),
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", p.scheduler),
				"--cert-dir=" + l.data("scheduler"),
			},
			ready: s.httpOK(fmt.Sprintf("https://127.0.0.1:%d/healthz", p.scheduler)), waits: "/healthz",
		},
		{
			name: "kwok", exe: self,
			args: append([]string{"kwok",
				"--kubeconfig=" + l.partConfig("kwok"),
				"--config=" + l.config("stages.yaml"),
				"--v=WARN",
				"--manage-all-nodes=false",
				"--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
				"--node-lease-duration-seconds=12",
				"--cidr=" + simPodCIDR, "--node-ip=" + simNodeIP,
				"--server-address=" + loopback(p.kwok),
			}, nodePort...),
			env:   simulation,
			ready: s.httpOK(fmt.Sprintf("http://127.0.0.1:%d/healthz", p.kwok)), waits: "/healthz",
		},
	}
}

// nodeParts are the real node's, in the order in which they need each other.
func (s *supervisor) nodeParts() []spec {
	l, self := s.layout, s.layout.bin("stoker-cluster")
	return []spec{
		{
			name: "containerd", exe: l.bin("containerd"),
			args:  []string{"--config", l.config("containerd.toml")},
			ready: s.unixAccepts(l.containerdSocket()), waits: "its socket",
		},
		{
			name: "kubelet", exe: self,
			args: []string{"kubelet",
				"--config=" + l.config("kubelet.yaml"),
				"--kubeconfig=" + l.partConfig("kubelet"),
				"--root-dir=" + l.data("kubelet"),
				"--cert-dir=" + l.data("kubelet/pki"),
				"--hostname-override=" + realNodeName,
				"--node-ip=" + nodeIP,
				"--node-labels=stoker.dev/node=real",
			},
			ready: s.nodeReady(realNodeName), waits: "node " + realNodeName + " to be Ready",
		},
		{
			name: "kube-proxy", exe: self,
			args:  []string{"kube-proxy", "--config=" + l.config("kube-proxy.yaml")},
			ready: s.httpOK("http://127.0.0.1:10256/healthz"), waits: "/healthz",
		},
	}
}

// httpOK asks from inside the namespace. Parts make their own certificates, so those are not checked.
func (s *supervisor) httpOK(url string) func(context.Context) error {
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return s.inside.dial(address)
		},
	}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}

func (s *supervisor) unixAccepts(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	}
}

// partEnvironment is all that a part gets to see of the environment, so that nothing of
// the caller's (proxies, KUBECONFIG) leaks into the cluster.
func partEnvironment(l layout) []string {
	path := strings.Join([]string{l.path("bin"), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":")
	return []string{"PATH=" + path, "HOME=" + l.path("data"), "TMPDIR=/tmp"}
}
