// The images that a cluster always has, and the `images` command, which adds others.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	busyboxImage    = "docker.io/local/busybox:1"
	busyServerImage = "docker.io/local/busy-server:1"
	pauseImage      = "docker.io/local/pause:1"
	gateImage       = "docker.io/stoker/gate:dev"
)

// gateUser is a number, so that the kubelet knows without looking that it is not root: a pod with
// runAsNonRoot may have the gate beside a workload that has a user of its own.
const gateUser = "65532:65532"

// standardImages writes the archives that are always imported and returns their files.
func standardImages(l layout) ([]string, error) {
	path, err := findBusybox()
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(path, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list-full: %w", path, err)
	}
	all := []image{
		busyboxFiles(busybox, strings.Fields(string(applets))),
		{
			// What holds a pod's namespaces only has to stay.
			name: pauseImage, files: []imageFile{{path: "/bin/busybox", content: busybox, mode: 0o755}},
			command: []string{"/bin/busybox", "sleep", "2147483647"},
		},
	}
	if server, err := os.ReadFile(l.bin("busy-server")); err == nil {
		all = append(all, image{
			name: busyServerImage, files: []imageFile{{path: "/busy-server", content: server, mode: 0o755}, {path: "/tmp/", mode: 0o1777}},
			entrypoint: []string{"/busy-server"},
		})
	} else {
		logf("no image %s: %v (hack/setup.sh cluster builds it)", busyServerImage, err)
	}
	if gate, err := gateFiles(l); err == nil {
		all = append(all, gate)
	} else {
		logf("no image %s: %v (make gate builds it)", gateImage, err)
	}
	var files []string
	for _, i := range all {
		file, err := i.save(l)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func busyboxFiles(busybox []byte, applets []string) image {
	files := []imageFile{
		{path: "/bin/busybox", content: busybox, mode: 0o755},
		{path: "/etc/passwd", content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{path: "/etc/group", content: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{path: "/tmp/", mode: 0o1777},
		{path: "/root/", mode: 0o700},
		{path: "/usr/bin/env", link: "/bin/busybox"},
	}
	for _, applet := range applets {
		if applet != "bin/busybox" {
			files = append(files, imageFile{path: "/" + applet, link: "/bin/busybox"})
		}
	}
	return image{name: busyboxImage, files: files, command: []string{"/bin/sh"}}
}

// gateFiles is the gate alone, as it was built last.
func gateFiles(l layout) (image, error) {
	gate, err := os.ReadFile(l.gate())
	if err != nil {
		return image{}, err
	}
	return image{
		name: gateImage, files: []imageFile{{path: "/stoker-gate", content: gate, mode: 0o755}},
		entrypoint: []string{"/stoker-gate"}, user: gateUser,
	}, nil
}

// refreshGate gives a running real node the gate that was built since it came up; importing is how
// the node gets an archive. An unchanged gate costs no import.
func refreshGate(l layout, importing func(layout, string) error) error {
	gate, err := gateFiles(l)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	before, _ := os.ReadFile(gate.archive(l))
	file, err := gate.save(l)
	if err != nil {
		return err
	}
	if after, err := os.ReadFile(file); err != nil || bytes.Equal(before, after) {
		return err
	}
	if err := importing(l, file); err != nil {
		// Else the next attempt would find the archive unchanged.
		return errors.Join(err, os.Remove(file))
	}
	fmt.Println("imported", gate.name)
	return nil
}

// archive is the image's file in the images folder.
func (i image) archive(l layout) string {
	return l.path("images", strings.NewReplacer("/", "_", ":", "_").Replace(i.name)+".tar")
}

// save writes the archive and returns its file.
func (i image) save(l layout) (string, error) {
	var archive bytes.Buffer
	if err := i.write(&archive); err != nil {
		return "", err
	}
	file := i.archive(l)
	return file, writeFileAtomically(file, archive.Bytes(), 0o644)
}

func importImage(l layout, file string) error {
	out, err := exec.Command(l.bin("ctr"), "--address", l.containerdSocket(), "--namespace", "k8s.io",
		"images", "import", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("importing %s: %w: %s", file, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func images(l layout, args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: images list | import FILE… | build NAME --file HOST:PATH")
	}
	if s, err := readState(l.stateFile()); err != nil || s == nil || !s.Supervisor.alive() || !s.RealNode {
		return errors.New("there is no running real node that could have images (make cluster-up REAL_NODE=1)")
	}
	switch args[0] {
	case "list":
		cmd := exec.Command(l.bin("ctr"), "--address", l.containerdSocket(), "--namespace", "k8s.io", "images", "list", "-q")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	case "import":
		for _, file := range args[1:] {
			if err := importImage(l, file); err != nil {
				return err
			}
			fmt.Println("imported", file)
		}
		return nil
	case "build":
		i, err := parseBuild(args[1:])
		if err != nil {
			return err
		}
		file, err := i.save(l)
		if err != nil {
			return err
		}
		if err := importImage(l, file); err != nil {
			return err
		}
		fmt.Printf("built and imported %s (%s)\n", i.name, file)
		return nil
	}
	return fmt.Errorf("images %s: there is no such thing to do", args[0])
}

// parseBuild reads `NAME --file HOST:PATH[:MODE] …`; the entry point defaults to the first file.
func parseBuild(args []string) (image, error) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return image{}, errors.New("images build: give the image's name first, as docker.io/local/NAME:TAG")
	}
	i := image{name: args[0], files: []imageFile{{path: "/tmp/", mode: 0o1777}}}
	if !strings.HasPrefix(i.name, "docker.io/local/") || !strings.Contains(filepath.Base(i.name), ":") {
		return image{}, fmt.Errorf("images build: %q: name it docker.io/local/NAME:TAG, or the kubelet would look for it elsewhere", i.name)
	}
	flags := flag.NewFlagSet("images build", flag.ContinueOnError)
	flags.Func("file", "HOST:PATH[:MODE]", func(value string) error {
		fields := strings.Split(value, ":")
		if len(fields) < 2 || len(fields) > 3 {
			return fmt.Errorf("%q: give HOST:PATH or HOST:PATH:MODE", value)
		}
		content, err := os.ReadFile(fields[0])
		if err != nil {
			return err
		}
		f := imageFile{path: fields[1], content: content, mode: 0o755}
		if len(fields) == 3 {
			if f.mode, err = strconv.ParseInt(fields[2], 8, 32); err != nil {
				return fmt.Errorf("%q: the mode is octal, such as 755", value)
			}
		}
		if len(i.entrypoint) == 0 {
			i.entrypoint = []string{f.path}
		}
		i.files = append(i.files, f)
		return nil
	})
	flags.Func("env", "KEY=VALUE", func(value string) error {
		i.env = append(i.env, value)
		return nil
	})
	entrypoint := flags.String("entrypoint", "", "the program to run, if not the first file")
	if err := flags.Parse(args[1:]); err != nil {
		return image{}, err
	}
	if *entrypoint != "" {
		i.entrypoint = []string{*entrypoint}
	}
	if flags.NArg() > 0 || len(i.entrypoint) == 0 {
		return image{}, errors.New("images build: give at least one --file HOST:PATH, and nothing after the flags")
	}
	return i, nil
}
