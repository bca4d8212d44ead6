// The layout of the Open Container Initiative: a folder that registries' clients push, engines load and nodes import.

package imagetar

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Layout is one image, for one or more architectures, by the paths of its files.
type Layout map[string][]byte

// NewLayout makes the layout of an image that is given once for each architecture. They have one name.
func NewLayout(images []Image) (Layout, error) {
	if len(images) == 0 {
		return nil, errors.New("an image needs an architecture")
	}
	layout := Layout{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	var manifests []descriptor
	for _, image := range images {
		if image.Name != images[0].Name {
			return nil, fmt.Errorf("%s and %s are not one image", image.Name, images[0].Name)
		}
		manifest, err := layout.add(image)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, manifest)
	}
	top := manifests[0]
	if len(manifests) > 1 {
		index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": manifests})
		if err != nil {
			return nil, err
		}
		top = layout.blob(mediaIndex, index)
	}
	name := images[0].Name
	top.Annotations = map[string]string{
		"io.containerd.image.name":          name,
		"org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:],
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaIndex, "manifests": []descriptor{top},
	})
	layout["index.json"] = index
	return layout, err
}

func (l Layout) add(image Image) (descriptor, error) {
	layer, err := image.layer()
	if err != nil {
		return descriptor{}, err
	}
	config, err := image.config(layer)
	if err != nil {
		return descriptor{}, err
	}
	var packed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err == nil {
		_, err = writer.Write(layer)
	}
	if err = errors.Join(err, writer.Close()); err != nil {
		return descriptor{}, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest,
		"config": l.blob(mediaConfig, config), "layers": []descriptor{l.blob(mediaLayer, packed.Bytes())},
	})
	if err != nil {
		return descriptor{}, err
	}
	of := l.blob(mediaManifest, manifest)
	of.Platform = &platform{Architecture: or(image.Architecture, "amd64"), OS: "linux"}
	return of, nil
}

func (l Layout) blob(media string, content []byte) descriptor {
	sum := digest(content)
	l["blobs/sha256/"+sum] = content
	return descriptor{MediaType: media, Digest: "sha256:" + sum, Size: len(content)}
}

func (l Layout) names() []string {
	names := make([]string, 0, len(l))
	for name := range l {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// WriteDir makes the folder anew.
func (l Layout) WriteDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for _, name := range l.names() {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, l[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// WriteArchive writes it as one file, which engines load.
func (l Layout) WriteArchive(w io.Writer) error {
	archive := tar.NewWriter(w)
	folders := map[string]bool{".": true}
	for _, name := range l.names() {
		for _, folder := range []string{path.Dir(path.Dir(name)), path.Dir(name)} {
			if !folders[folder] {
				folders[folder] = true
				if err := addToTar(archive, folder+"/", File{}); err != nil {
					return err
				}
			}
		}
		if err := addToTar(archive, name, File{Content: l[name]}); err != nil {
			return err
		}
	}
	return archive.Close()
}
