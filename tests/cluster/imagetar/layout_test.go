package imagetar

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func program(architecture string) Image {
	return Image{
		Name: "docker.io/some/program:1.2", Architecture: architecture, User: "1:1", Entrypoint: []string{"/program"},
		Files:  []File{{Path: "/program", Content: []byte("for " + architecture), Mode: 0o755}},
		Labels: map[string]string{"org.opencontainers.image.version": "1.2"},
	}
}

// followed checks a descriptor and returns what it points to.
func followed(t *testing.T, layout Layout, of descriptor) []byte {
	t.Helper()
	content, ok := layout["blobs/sha256/"+of.Digest[len("sha256:"):]]
	if !ok || len(content) != of.Size || "sha256:"+digest(content) != of.Digest {
		t.Fatalf("%+v points to nothing, or to something else", of)
	}
	return content
}

func decoded[T any](t *testing.T, content []byte) T {
	t.Helper()
	var into T
	if err := json.Unmarshal(content, &into); err != nil {
		t.Fatal(err)
	}
	return into
}

type manifest struct {
	SchemaVersion int
	MediaType     string
	Config        descriptor
	Layers        []descriptor
	Manifests     []descriptor
}

func checkProgram(t *testing.T, layout Layout, of descriptor, architecture string) {
	t.Helper()
	found := decoded[manifest](t, followed(t, layout, of))
	config := decoded[struct {
		Architecture, OS string
		Config           struct {
			Entrypoint []string
			User       string
			Labels     map[string]string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}](t, followed(t, layout, found.Config))
	if of.Platform.Architecture != architecture || config.Architecture != architecture || config.OS != "linux" {
		t.Errorf("%+v %+v", of, config)
	}
	if config.Config.Entrypoint[0] != "/program" || config.Config.User != "1:1" || config.Config.Labels["org.opencontainers.image.version"] != "1.2" {
		t.Errorf("%+v", config.Config)
	}
	packed, err := gzip.NewReader(bytes.NewReader(followed(t, layout, found.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	if config.Rootfs.DiffIDs[0] != "sha256:"+digest(layer) {
		t.Error("the configuration has another digest of the layer")
	}
	if f := untar(t, layer)["program"]; string(f.Content) != "for "+architecture || f.Mode != 0o755 {
		t.Errorf("%+v", f)
	}
}

func TestALayoutOfOneArchitectureNamesItsManifest(t *testing.T) {
	layout, err := NewLayout([]Image{program("arm64")})
	if err != nil {
		t.Fatal(err)
	}
	top := decoded[manifest](t, layout["index.json"])
	if len(top.Manifests) != 1 || top.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1.2" {
		t.Fatalf("%+v", top)
	}
	checkProgram(t, layout, top.Manifests[0], "arm64")
}

func TestALayoutOfSeveralArchitecturesHasAnIndexOfThem(t *testing.T) {
	layout, err := NewLayout([]Image{program("amd64"), program("arm64")})
	if err != nil {
		t.Fatal(err)
	}
	top := decoded[manifest](t, layout["index.json"])
	if len(top.Manifests) != 1 || top.Manifests[0].MediaType != mediaIndex {
		t.Fatalf("%+v", top)
	}
	index := decoded[manifest](t, followed(t, layout, top.Manifests[0]))
	for number, architecture := range []string{"amd64", "arm64"} {
		checkProgram(t, layout, index.Manifests[number], architecture)
	}
}

func TestFolderAndArchiveOfALayoutAreTheSame(t *testing.T) {
	layout, err := NewLayout([]Image{program("amd64")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewLayout([]Image{program("amd64")})
	if err != nil || !maps.EqualFunc(layout, again, bytes.Equal) {
		t.Errorf("two layouts of one image differ: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if err := layout.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := layout.WriteArchive(&archive); err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive.Bytes())
	for name, content := range layout {
		file, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(file, content) || !bytes.Equal(files[name].Content, content) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, folder := range []string{"blobs/", "blobs/sha256/"} {
		if _, ok := files[folder]; !ok {
			t.Errorf("no folder %s in the archive", folder)
		}
	}
}

func TestWhatHasTwoNamesIsNotOneImage(t *testing.T) {
	other := program("arm64")
	other.Name = "docker.io/some/other:1.2"
	if _, err := NewLayout([]Image{program("amd64"), other}); err == nil {
		t.Error("it was taken")
	}
}
