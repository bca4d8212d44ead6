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

	"stoker.dev/tests/cluster/imagetar"
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
	all := []imagetar.Image{
		busyboxFiles(busybox, strings.Fields(string(applets))),
		{
			// What holds a pod's namespaces only has to stay.
			Name: pauseImage, Files: []imagetar.File{{Path: "/bin/busybox", Content: busybox, Mode: 0o755}},
			Command: []string{"/bin/busybox", "sleep", "2147483647"},
		},
	}
	if server, err := os.ReadFile(l.bin("busy-server")); err == nil {
		all = append(all, imagetar.Image{
			Name: busyServerImage, Files: []imagetar.File{{Path: "/busy-server", Content: server, Mode: 0o755}, {Path: "/tmp/", Mode: 0o1777}},
			Entrypoint: []string{"/busy-server"},
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
		file, err := save(l, i)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func busyboxFiles(busybox []byte, applets []string) imagetar.Image {
	files := []imagetar.File{
		{Path: "/bin/busybox", Content: busybox, Mode: 0o755},
		{Path: "/etc/passwd", Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "/etc/group", Content: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "/tmp/", Mode: 0o1777},
		{Path: "/root/", Mode: 0o700},
		{Path: "/usr/bin/env", Link: "/bin/busybox"},
	}
	for _, applet := range applets {
		if applet != "bin/busybox" {
			files = append(files, imagetar.File{Path: "/" + applet, Link: "/bin/busybox"})
		}
	}
	return imagetar.Image{Name: busyboxImage, Files: files, Command: []string{"/bin/sh"}}
}

// gateFiles is the gate alone, as it was built last.
func gateFiles(l layout) (imagetar.Image, error) {
	gate, err := os.ReadFile(l.gate())
	if err != nil {
		return imagetar.Image{}, err
	}
	return imagetar.Image{
		Name: gateImage, Files: []imagetar.File{{Path: "/stoker-gate", Content: gate, Mode: 0o755}},
		Entrypoint: []string{"/stoker-gate"}, User: gateUser,
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
	before, _ := os.ReadFile(archiveOf(l, gate))
	file, err := save(l, gate)
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
	fmt.Println("imported", gate.Name)
	return nil
}

// archiveOf is the image's file in the images folder.
func archiveOf(l layout, i imagetar.Image) string {
	return l.path("images", strings.NewReplacer("/", "_", ":", "_").Replace(i.Name)+".tar")
}

// save writes the archive and returns its file.
func save(l layout, i imagetar.Image) (string, error) {
	var archive bytes.Buffer
	if err := i.WriteArchive(&archive); err != nil {
		return "", err
	}
	file := archiveOf(l, i)
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
		file, err := save(l, i)
		if err != nil {
			return err
		}
		if err := importImage(l, file); err != nil {
			return err
		}
		fmt.Printf("built and imported %s (%s)\n", i.Name, file)
		return nil
	}
	return fmt.Errorf("images %s: there is no such thing to do", args[0])
}

// parseBuild reads `NAME --file HOST:PATH[:MODE] …`; the entry point defaults to the first file.
func parseBuild(args []string) (imagetar.Image, error) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return imagetar.Image{}, errors.New("images build: give the image's name first, as docker.io/local/NAME:TAG")
	}
	i := imagetar.Image{Name: args[0], Files: []imagetar.File{{Path: "/tmp/", Mode: 0o1777}}}
	if !strings.HasPrefix(i.Name, "docker.io/local/") || !strings.Contains(filepath.Base(i.Name), ":") {
		return imagetar.Image{}, fmt.Errorf("images build: %q: name it docker.io/local/NAME:TAG, or the kubelet would look for it elsewhere", i.Name)
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
		f := imagetar.File{Path: fields[1], Content: content, Mode: 0o755}
		if len(fields) == 3 {
			if f.Mode, err = strconv.ParseInt(fields[2], 8, 32); err != nil {
				return fmt.Errorf("%q: the mode is octal, such as 755", value)
			}
		}
		if len(i.Entrypoint) == 0 {
			i.Entrypoint = []string{f.Path}
		}
		i.Files = append(i.Files, f)
		return nil
	})
	flags.Func("env", "KEY=VALUE", func(value string) error {
		i.Env = append(i.Env, value)
		return nil
	})
	entrypoint := flags.String("entrypoint", "", "the program to run, if not the first file")
	if err := flags.Parse(args[1:]); err != nil {
		return imagetar.Image{}, err
	}
	if *entrypoint != "" {
		i.Entrypoint = []string{*entrypoint}
	}
	if flags.NArg() > 0 || len(i.Entrypoint) == 0 {
		return imagetar.Image{}, errors.New("images build: give at least one --file HOST:PATH, and nothing after the flags")
	}
	return i, nil
}
