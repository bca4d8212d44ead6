package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program builds a program for an architecture.
func program(t *testing.T, architecture string, cgo bool) string {
	t.Helper()
	dir := t.TempDir()
	source := "package main\nfunc main() {}\n"
	if cgo {
		source = "package main\nimport \"C\"\nfunc main() {}\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-o", file, filepath.Join(dir, "main.go"))
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	cmd.Env = append(os.Environ(), "GOARCH="+architecture, "CGO_ENABLED="+enabled)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

func TestAnImageHasItsProgramsForEachArchitecture(t *testing.T) {
	amd64, arm64 := program(t, "amd64", false), program(t, "arm64", false)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err := run([]string{"--name", "docker.io/some/program:1", "--out", filepath.Join(dir, "layout"), "--archive", filepath.Join(dir, "layout.tar"),
		"--label", "a=b", "--file", "amd64=" + amd64 + ":/program", "--file", "arm64=" + arm64 + ":/program", "--file", text + ":/etc/text:644"})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "layout/blobs/sha256/*"))
	// A layer, a configuration and a manifest each, and the index of both.
	if err != nil || len(blobs) != 7 {
		t.Errorf("%v: %q", err, blobs)
	}
	if _, err := os.Stat(filepath.Join(dir, "layout.tar")); err != nil {
		t.Error(err)
	}
}

func TestWhatWouldNotRunIsRefused(t *testing.T) {
	good := program(t, "amd64", false)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	dynamic := program(t, "amd64", true)
	for _, test := range []struct {
		why   string
		files []string
	}{
		{"is for EM_X86_64, not for arm64", []string{"arm64=" + good + ":/program"}},
		{"is no program", []string{"amd64=" + text + ":/program"}},
		{"is not static", []string{"amd64=" + dynamic + ":/program"}},
		{"the architecture is amd64 or arm64", []string{"mips=" + good + ":/program"}},
		{"give HOST:PATH", []string{"amd64=" + good}},
		{"give a program", []string{text + ":/text"}},
		{"no such file", []string{"amd64=/nowhere:/program"}},
		{"the image for arm64 has", []string{"amd64=" + good + ":/program", "arm64=" + program(t, "arm64", false) + ":/other"}},
	} {
		args := []string{"--name", "some/program:1", "--out", filepath.Join(t.TempDir(), "layout")}
		for _, file := range test.files {
			args = append(args, "--file", file)
		}
		if err := run(args); err == nil || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%q: %v", test.files, err)
		}
	}
}

func TestANameHasATag(t *testing.T) {
	for _, name := range []string{"", "some/program", "localhost:5000/program"} {
		if err := run([]string{"--name", name, "--out", t.TempDir()}); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}
