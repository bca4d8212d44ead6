// Image archives without any registry or builder: one layer of files, in the format of `docker save`.
// The same content gives the same bytes.
package main

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

// imageFile is a file of an image; with a link it is a symbolic link, with a trailing slash a folder.
type imageFile struct {
	path    string // absolute
	content []byte
	link    string
	mode    int64
}

type image struct {
	name       string // docker.io/local/NAME:TAG, in full: that is what the kubelet asks for
	files      []imageFile
	entrypoint []string
	command    []string
	env        []string
	user       string // UID:GID; root if empty
}

// builtAt is the date of everything in an image: a constant, so that digests do not change.
var builtAt = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (i image) write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "created": builtAt,
		"config": map[string]any{
			"Entrypoint": i.entrypoint, "Cmd": i.command, "WorkingDir": "/", "User": i.user,
			"Env": append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.env...),
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		"history": []map[string]any{{"created": builtAt, "created_by": "stoker-cluster"}},
	})
	if err != nil {
		return err
	}
	configName, layerName := digest(config)+".json", digest(layer)+".tar"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{i.name}, "Layers": []string{layerName},
	}})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, f := range []imageFile{
		{path: "manifest.json", content: manifest}, {path: configName, content: config}, {path: layerName, content: layer},
	} {
		if err := addToTar(archive, f.path, f); err != nil {
			return err
		}
	}
	return archive.Close()
}

// layer writes every parent folder before what lies in it, as unpackers want it.
func (i image) layer() ([]byte, error) {
	byPath := map[string]imageFile{}
	for _, f := range i.files {
		if !strings.HasPrefix(f.path, "/") {
			return nil, fmt.Errorf("image %s: %q is not an absolute path", i.name, f.path)
		}
		folder := strings.HasSuffix(f.path, "/")
		name := strings.TrimPrefix(path.Clean(f.path), "/")
		if folder {
			name += "/"
		}
		byPath[name] = f
		for parent := path.Dir(strings.TrimSuffix(name, "/")); parent != "."; parent = path.Dir(parent) {
			if _, ok := byPath[parent+"/"]; !ok {
				byPath[parent+"/"] = imageFile{mode: 0o755}
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

func addToTar(archive *tar.Writer, name string, f imageFile) error {
	header := &tar.Header{Name: name, Mode: f.mode, ModTime: builtAt, Format: tar.FormatPAX}
	switch {
	case strings.HasSuffix(name, "/"):
		header.Typeflag = tar.TypeDir
		if f.mode == 0 {
			header.Mode = 0o755
		}
	case f.link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.link, 0o777
	default:
		header.Typeflag, header.Size = tar.TypeReg, int64(len(f.content))
		if f.mode == 0 {
			header.Mode = 0o644
		}
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(f.content)
	return err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
