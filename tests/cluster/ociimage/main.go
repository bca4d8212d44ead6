// ociimage packs static programs into an image, without any registry, engine or root:
//
//	ociimage --name docker.io/stoker/stoker:0.1.0 --out DIR [--archive FILE] [--label KEY=VALUE]...
//	    --file [ARCHITECTURE=]HOST:PATH[:MODE]...
//
// The image is made for each architecture that a file is given for; a file without one, such as certificates, is in all. The
// first file is what it runs. Programs must be static and of their architecture, as there is nothing else in the image.
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"stoker.dev/tests/cluster/imagetar"
)

// user is a number, so that the kubelet knows without looking that it is not root.
const user = "65532:65532"

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// given is a file of the image, for one architecture or, if that is empty, for all.
type given struct {
	architecture string
	file         imagetar.File
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ociimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("ociimage", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	name := flags.String("name", "", "the image's name and tag")
	out := flags.String("out", "", "the folder of the layout, which is made anew")
	archive := flags.String("archive", "", "the same as one file")
	labels := map[string]string{}
	flags.Func("label", "KEY=VALUE", func(value string) error {
		key, text, ok := strings.Cut(value, "=")
		if !ok {
			return fmt.Errorf("%q: give KEY=VALUE", value)
		}
		labels[key] = text
		return nil
	})
	var files []given
	flags.Func("file", "[ARCHITECTURE=]HOST:PATH[:MODE]", func(value string) error {
		one, err := parse(value)
		files = append(files, one)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *name == "" || *out == "" || flags.NArg() > 0 || !strings.Contains((*name)[strings.LastIndex(*name, "/")+1:], ":") {
		return errors.New("give --name NAME:TAG, --out DIR and --file, and nothing after the flags")
	}
	images, err := pack(*name, labels, files)
	if err != nil {
		return err
	}
	layout, err := imagetar.NewLayout(images)
	if err != nil {
		return err
	}
	if *archive != "" {
		var content bytes.Buffer
		if err := layout.WriteArchive(&content); err != nil {
			return err
		}
		if err := os.WriteFile(*archive, content.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return layout.WriteDir(*out)
}

func parse(value string) (given, error) {
	architecture, rest, ok := strings.Cut(value, "=")
	if !ok {
		architecture, rest = "", value
	} else if _, known := machines[architecture]; !known {
		return given{}, fmt.Errorf("%q: the architecture is amd64 or arm64", value)
	}
	fields := strings.Split(rest, ":")
	if len(fields) < 2 || len(fields) > 3 {
		return given{}, fmt.Errorf("%q: give HOST:PATH or HOST:PATH:MODE", value)
	}
	content, err := os.ReadFile(fields[0])
	if err != nil {
		return given{}, err
	}
	file := imagetar.File{Path: fields[1], Content: content, Mode: 0o755}
	if len(fields) == 3 {
		if file.Mode, err = strconv.ParseInt(fields[2], 8, 32); err != nil {
			return given{}, fmt.Errorf("%q: the mode is octal, such as 644", value)
		}
	}
	if architecture != "" {
		if err := static(file.Content, architecture); err != nil {
			return given{}, fmt.Errorf("%s: %w", fields[0], err)
		}
	}
	return given{architecture, file}, nil
}

// static tells why a program would not run where there is nothing but it.
func static(program []byte, architecture string) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("is no program: %w", err)
	}
	if file.Machine != machines[architecture] {
		return fmt.Errorf("is for %s, not for %s", file.Machine, architecture)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return errors.New("is not static: it asks for a loader, which the image does not have; build it for a musl target")
		}
	}
	return nil
}

// pack makes the image for each architecture.
func pack(name string, labels map[string]string, files []given) ([]imagetar.Image, error) {
	var architectures []string
	for _, one := range files {
		if one.architecture != "" && !slices.Contains(architectures, one.architecture) {
			architectures = append(architectures, one.architecture)
		}
	}
	if len(architectures) == 0 {
		return nil, errors.New("give a program with its architecture, such as --file amd64=HOST:/program")
	}
	var images []imagetar.Image
	var first []string
	for _, architecture := range architectures {
		image := imagetar.Image{Name: name, Architecture: architecture, User: user, Labels: labels, By: "stoker"}
		var paths []string
		for _, one := range files {
			if one.architecture == architecture || one.architecture == "" {
				image.Files = append(image.Files, one.file)
				paths = append(paths, one.file.Path)
			}
		}
		if first == nil {
			first = paths
		}
		if !slices.Equal(paths, first) {
			return nil, fmt.Errorf("the image for %s has %q, and that for %s %q", architecture, paths, architectures[0], first)
		}
		image.Entrypoint = paths[:1]
		images = append(images, image)
	}
	return images, nil
}
