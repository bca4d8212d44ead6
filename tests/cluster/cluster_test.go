// Tests of what needs no cluster: state, certificates, configuration, image archives, mounts.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"stoker.dev/tests/cluster/imagetar"
)

func TestTwoCheckoutsShareNothing(t *testing.T) {
	a, b := newLayout("/home/a/target/cluster"), newLayout("/home/b/target/cluster")
	if a.namespace() == b.namespace() || a.short() == b.short() {
		t.Errorf("%q and %q have the same names", a.dir, b.dir)
	}
	if len(a.containerdSocket()) > 60 {
		t.Errorf("%s leaves too little of a socket path's 107 bytes", a.containerdSocket())
	}
}

func TestAStateIsReadAsItWasWritten(t *testing.T) {
	l := newLayout(t.TempDir())
	if s, err := readState(l.stateFile()); s != nil || err != nil {
		t.Fatalf("no state file: %v, %v", s, err)
	}
	me, ok := identify(os.Getpid())
	if !ok {
		t.Fatal("I do not find myself")
	}
	written := state{Phase: phaseReady, Supervisor: me, Port: 7, Parts: map[string]partState{"etcd": {process: me, Restarts: 2}}}
	if err := writeState(l.stateFile(), &written); err != nil {
		t.Fatal(err)
	}
	read, err := readState(l.stateFile())
	if err != nil {
		t.Fatal(err)
	}
	if read.Supervisor != me || read.Parts["etcd"].Restarts != 2 || !read.Parts["etcd"].alive() {
		t.Errorf("%+v", read)
	}
}

func TestAReusedProcessIdIsNotOurs(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	real, _ := identify(cmd.Process.Pid)
	other := real
	other.Start++
	other.signal(syscall.SIGKILL)
	if !real.alive() || other.alive() {
		t.Error("a process with another start time was taken for ours")
	}
	real.signal(syscall.SIGKILL)
	go cmd.Wait()
	if !real.waitGone(5 * time.Second) {
		t.Error("still there")
	}
}

func TestTheStartTimeIsFoundBehindAnyProgramName(t *testing.T) {
	stat := "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"
	start, zombie, err := parseStat([]byte(stat))
	if start != 4711 || zombie || err != nil {
		t.Errorf("%d %t %v", start, zombie, err)
	}
	if _, zombie, _ := parseStat([]byte(strings.Replace(stat, ") S", ") Z", 1))); !zombie {
		t.Error("a zombie counts as alive")
	}
}

func TestTheServingCertificateHoldsForEveryWayToTheServer(t *testing.T) {
	l := newLayout(t.TempDir())
	if err := ensurePKI(l); err != nil {
		t.Fatal(err)
	}
	ca, err := readCertificate(l.pki("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := readCertificate(l.pki("apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, name := range []string{"127.0.0.1", "localhost", nodeIP, serviceIP, "kubernetes.default.svc"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ensurePKI(l); err != nil {
		t.Fatal(err)
	}
	if again, _ := readCertificate(l.pki("apiserver.crt")); !again.Equal(leaf) {
		t.Error("a second call made another certificate")
	}
	if err := writeKubeconfigs(l, 4711); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig())
	if err != nil || config.Host != "https://127.0.0.1:4711" || len(config.CertData) == 0 {
		t.Errorf("kubeconfig: %v, %v", config, err)
	}
}

func TestServiceAndPodAddressesDoNotOverlap(t *testing.T) {
	var networks []*net.IPNet
	for _, cidr := range []string{nodeCIDR, realPodCIDR, simPodCIDR, serviceCIDR} {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range networks {
			if network.Contains(other.IP) || other.Contains(network.IP) {
				t.Errorf("%s and %s", network, other)
			}
		}
		networks = append(networks, network)
	}
}

func TestConfigurationsAreFilledAndReadable(t *testing.T) {
	l := newLayout(t.TempDir())
	if err := writeConfigs(l, "/usr/sbin/runc"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scheduler.yaml", "kubelet.yaml", "kube-proxy.yaml", "audit-policy.yaml", "cni/10-stoker.conflist"} {
		content, err := os.ReadFile(l.config(name))
		if err != nil {
			t.Fatal(err)
		}
		var parsed map[string]any
		if err := yaml.UnmarshalStrict(content, &parsed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(string(content), "{{") {
			t.Errorf("%s is not filled", name)
		}
	}
}

func TestAnImageIsBuiltFromTheFilesGiven(t *testing.T) {
	i, err := parseBuild([]string{"docker.io/local/gate:1", "--file", os.Args[0] + ":/gate", "--env", "A=b"})
	if err != nil {
		t.Fatal(err)
	}
	if i.Entrypoint[0] != "/gate" || !slices.Contains(i.Env, "A=b") {
		t.Errorf("%+v", i.Entrypoint)
	}
	for _, args := range [][]string{
		{}, {"gate"}, {"docker.io/local/gate:1"}, {"docker.io/local/gate:1", "--file", "nowhere"},
	} {
		if _, err := parseBuild(args); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

// gateBuilt puts a gate where make does.
func gateBuilt(t *testing.T, l layout, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.gate()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.gate(), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func untar(t *testing.T, data []byte) map[string]imagetar.File {
	t.Helper()
	files, err := imagetar.Unpack(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTheGatesImageHasTheGateAndNothingElse(t *testing.T) {
	l := newLayout(filepath.Join(t.TempDir(), "cluster"))
	if _, err := gateFiles(l); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without a gate: %v", err)
	}
	gateBuilt(t, l, "a gate")
	i, err := gateFiles(l)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := i.WriteArchive(&archive); err != nil {
		t.Fatal(err)
	}
	outer := untar(t, archive.Bytes())
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(outer["manifest.json"].Content, &manifest); err != nil {
		t.Fatal(err)
	}
	var config struct {
		Config struct {
			Entrypoint, Cmd []string
			User            string
		}
	}
	if err := json.Unmarshal(outer[manifest[0].Config].Content, &config); err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if manifest[0].RepoTags[0] != "docker.io/stoker/gate:dev" ||
		!slices.Equal(c.Entrypoint, []string{"/stoker-gate"}) || c.Cmd != nil || c.User != "65532:65532" {
		t.Errorf("%v: %+v", manifest[0].RepoTags, c)
	}
	files := untar(t, outer[manifest[0].Layers[0]].Content)
	if f := files["stoker-gate"]; len(files) != 1 || string(f.Content) != "a gate" || f.Mode != 0o755 {
		t.Errorf("%+v", files)
	}
}

func TestAGateIsAmongTheStandardImagesOnceItIsBuilt(t *testing.T) {
	if _, err := findBusybox(); err != nil {
		t.Skip(err)
	}
	l := newLayout(filepath.Join(t.TempDir(), "cluster"))
	for _, built := range []bool{false, true} {
		if built {
			gateBuilt(t, l, "a gate")
		}
		files, err := standardImages(l)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(files, archiveOf(l, imagetar.Image{Name: gateImage})) != built {
			t.Errorf("built %t: %q", built, files)
		}
	}
}

func TestARunningNodeGetsAGateOnlyWhenItChanged(t *testing.T) {
	l := newLayout(filepath.Join(t.TempDir(), "cluster"))
	var imported int
	fails := errors.New("no containerd")
	var answer error
	refresh := func() error {
		return refreshGate(l, func(layout, string) error { imported++; return answer })
	}
	for _, step := range []struct {
		what   string
		gate   string
		answer error
		want   int // imports so far
	}{
		{"no gate was built", "", nil, 0},
		{"the first", "1", nil, 1},
		{"the same", "1", nil, 1},
		{"another, which fails", "2", fails, 2},
		{"another, once more", "2", nil, 3},
		{"the same other", "2", nil, 3},
	} {
		if step.gate != "" {
			gateBuilt(t, l, step.gate)
		}
		answer = step.answer
		if err := refresh(); !errors.Is(err, step.answer) || (err != nil) != (step.answer != nil) || imported != step.want {
			t.Errorf("%s: %v after %d imports, want %d", step.what, err, imported, step.want)
		}
	}
}

func TestOnlyOwnMountsAreUnmountedTheInnermostFirst(t *testing.T) {
	table := `1 0 8:1 / / rw - ext4 /dev/sda rw
2 1 0:1 / /c/data/kubelet/pods/a rw - tmpfs t rw
3 2 0:2 / /c/data/kubelet/pods/a/inner\040one rw - tmpfs t rw
4 1 0:3 / /c/database rw - tmpfs t rw
5 1 0:4 / /run/x/containerd/b rw - overlay o rw`
	got := mountsBelow(table, []string{"/c/data", "/run/x"})
	want := []string{"/c/data/kubelet/pods/a/inner one", "/c/data/kubelet/pods/a", "/run/x/containerd/b"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTheRelayPassesOnAHalfClosedConnection(t *testing.T) {
	// given a server that answers only when the client has ended its request
	server, err := net.Listen("tcp4", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		request, _ := io.ReadAll(conn)
		_, _ = conn.Write(append([]byte("got "), request...))
		conn.Close()
	}()
	front, err := net.Listen("tcp4", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	go relay(front, nil, server.Addr().(*net.TCPAddr).Port)
	// when the client ends its side
	conn, err := net.Dial("tcp4", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("hello"))
	_ = conn.(*net.TCPConn).CloseWrite()
	// then the answer still arrives
	answer, _ := io.ReadAll(conn)
	if string(answer) != "got hello" {
		t.Errorf("%q", answer)
	}
}
