// Package imagetar makes images without any registry or builder: one layer of files, as an archive in the format of
// `docker save` or as a layout of the Open Container Initiative. The same content gives the same bytes.
package imagetar

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"time"
)

// File is a file of an image; with a link it is a symbolic link, with a trailing slash a folder.
type File struct {
	Path    string // absolute
	Content []byte
	Link    string
	Mode    int64
}

// Image is what one is made of.
type Image struct {
	Name         string // docker.io/local/NAME:TAG, in full: that is what the kubelet asks for
	Architecture string // amd64 if empty
	Files        []File
	Entrypoint   []string
	Command      []string
	Env          []string
	User         string // UID:GID; root if empty
	Labels       map[string]string
	By           string // what made it; stoker-cluster if empty
}

// builtAt is the date of everything in an image: a constant, so that digests do not change.
var builtAt = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (i Image) config(layer []byte) ([]byte, error) {
	config := map[string]any{
		"Entrypoint": i.Entrypoint, "Cmd": i.Command, "WorkingDir": "/", "User": i.User,
		"Env": append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.Env...),
	}
	if len(i.Labels) > 0 {
		config["Labels"] = i.Labels
	}
	return json.Marshal(map[string]any{
		"architecture": or(i.Architecture, "amd64"), "os": "linux", "created": builtAt, "config": config,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		"history": []map[string]any{{"created": builtAt, "created_by": or(i.By, "stoker-cluster")}},
	})
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// WriteArchive writes the image as `docker save` does.
func (i Image) WriteArchive(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	config, err := i.config(layer)
	if err != nil {
		return err
	}
	configName, layerName := digest(config)+".json", digest(layer)+".tar"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{i.Name}, "Layers": []string{layerName},
	}})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, f := range []File{
		{Path: "manifest.json", Content: manifest}, {Path: configName, Content: config}, {Path: layerName, Content: layer},
	} {
		if err := addToTar(archive, f.Path, f); err != nil {
			return err
		}
	}
	return archive.Close()
}

// layer writes every parent folder before what lies in it, as unpackers want it.
func (i Image) layer() ([]byte, error) {
	byPath := map[string]File{}
	for _, f := range i.Files {
		if !strings.HasPrefix(f.Path, "/") {
			return nil, fmt.Errorf("image %s: %q is not an absolute path", i.Name, f.Path)
		}
		folder := strings.HasSuffix(f.Path, "/")
		name := strings.TrimPrefix(path.Clean(f.Path), "/")
		if folder {
			name += "/"
		}
		byPath[name] = f
		for parent := path.Dir(strings.TrimSuffix(name, "/")); parent != "."; parent = path.Dir(parent) {
			if _, ok := byPath[parent+"/"]; !ok {
				byPath[parent+"/"] = File{Mode: 0o755}
			}
		}
	}
	names := make([]string, 0, len(byPath))
	for name := range byPath {
		names = append(names, name)
	}
	sort.Strings(names)
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, name := range names {
		if err := addToTar(archive, name, byPath[name]); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return out.Bytes(), err
}

func addToTar(archive *tar.Writer, name string, f File) error {
	header := &tar.Header{Name: name, Mode: f.Mode, ModTime: builtAt, Format: tar.FormatPAX}
	switch {
	case strings.HasSuffix(name, "/"):
		header.Typeflag = tar.TypeDir
		if f.Mode == 0 {
			header.Mode = 0o755
		}
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.Link, 0o777
	default:
		header.Typeflag, header.Size = tar.TypeReg, int64(len(f.Content))
		if f.Mode == 0 {
			header.Mode = 0o644
		}
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(f.Content)
	return err
}

// Unpack reads the files of an archive or a layer, by their names in it.
func Unpack(r io.Reader) (map[string]File, error) {
	files := map[string]File{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		files[header.Name] = File{Content: content, Link: header.Linkname, Mode: header.Mode}
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
