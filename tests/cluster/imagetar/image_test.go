package imagetar

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestAnImageArchiveIsCompleteAndAlwaysTheSame(t *testing.T) {
	i := Image{Name: "docker.io/local/one:1", Files: []File{
		{Path: "/bin/busybox", Content: []byte("program"), Mode: 0o755}, {Path: "/usr/bin/wget", Link: "/bin/busybox"}, {Path: "/tmp/", Mode: 0o1777},
	}}
	var first, second bytes.Buffer
	if err := i.WriteArchive(&first); err != nil {
		t.Fatal(err)
	}
	if err := i.WriteArchive(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same image differ")
	}
	outer := untar(t, first.Bytes())
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(outer["manifest.json"].Content, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest[0].RepoTags[0] != i.Name {
		t.Errorf("tag %v", manifest[0].RepoTags)
	}
	layer := outer[manifest[0].Layers[0]].Content
	if !bytes.Contains(outer[manifest[0].Config].Content, []byte("sha256:"+digest(layer))) {
		t.Error("the configuration does not name the layer's digest")
	}
	files := untar(t, layer)
	if f := files["bin/busybox"]; string(f.Content) != "program" || f.Mode != 0o755 {
		t.Errorf("busybox: %+v", f)
	}
	if files["usr/bin/wget"].Link != "/bin/busybox" {
		t.Error("no link for an applet")
	}
	for _, folder := range []string{"bin/", "usr/", "usr/bin/", "tmp/"} {
		if _, ok := files[folder]; !ok {
			t.Errorf("no folder %s", folder)
		}
	}
}

func untar(t *testing.T, data []byte) map[string]File {
	t.Helper()
	files, err := Unpack(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return files
}
