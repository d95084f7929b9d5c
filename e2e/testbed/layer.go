package testbed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one member of a layer: a directory (name ends in a slash), a link, or a file of the given text.
type entry struct {
	name string
	mode int64
	text string
	// symlink or hardlink is what the link points to.
	symlink, hardlink string
}

// packedOn is the time of all files: a layer's digest depends on its content only.
var packedOn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// header turns e into a tar header.
func (e entry) header() *tar.Header {
	h := &tar.Header{Name: e.name, Mode: e.mode, ModTime: packedOn, Typeflag: tar.TypeReg, Size: int64(len(e.text))}
	switch {
	case e.symlink != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.symlink
	case e.hardlink != "":
		h.Typeflag, h.Linkname = tar.TypeLink, e.hardlink
	case e.name[len(e.name)-1] == '/':
		h.Typeflag = tar.TypeDir
	}
	return h
}

// packLayer makes a compressed layer of entries.
func packLayer(mediaType types.MediaType, entries []entry) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(e.header()); err != nil {
			return nil, fmt.Errorf("packing %s: %w", e.name, err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			return nil, fmt.Errorf("packing %s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(mediaType))
}

// helloLayers are the layers of the image that says hello: together they hold all kinds of entries that clients
// treat differently, and the later ones change what the earlier ones brought.
func helloLayers(mediaType types.MediaType, program string) ([]v1.Layer, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	content := [][]entry{
		{
			{name: "bin/", mode: 0o755},
			{name: "bin/hello", mode: 0o755, text: string(binary)},
			{name: "etc/", mode: 0o755},
			{name: "etc/passwd", mode: 0o644, text: "root:x:0:0:root:/:/bin/hello\n"},
			{name: "tmp/", mode: 0o1777},
			{name: "layers/", mode: 0o755},
			{name: "layers/first", mode: 0o644, text: "from layer 1\n"},
			{name: "layers/removed", mode: 0o644, text: "layer 2 takes this away\n"},
			{name: "layers/replaced", mode: 0o644, text: "from layer 1\n"},
		},
		{
			{name: "layers/second", mode: 0o600, text: "from layer 2\n"},
			{name: "layers/link", mode: 0o777, symlink: "second"},
			{name: "layers/replaced", mode: 0o640, text: "from layer 2\n"},
			{name: "layers/.wh.removed", mode: 0o644},
		},
		{
			{name: "layers/deep/", mode: 0o700},
			{name: "layers/deep/third", mode: 0o444, text: "from layer 3\n"},
			{name: "layers/twin", mode: 0o444, hardlink: "layers/deep/third"},
			{name: "data/", mode: 0o755},
			{name: "data/noise", mode: 0o644, text: noise(3, 1<<20)},
		},
	}
	var layers []v1.Layer
	for _, entries := range content {
		l, err := packLayer(mediaType, entries)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// helloOutput is what the program of helloLayers prints.
func helloOutput(arch string) string {
	return "hello from entrepot's test image, linux/" + arch + `
-r--r--r-- deep/third from layer 3
-rw-r--r-- first from layer 1
-rw------- link from layer 2
-rw-r----- replaced from layer 2
-rw------- second from layer 2
-r--r--r-- twin from layer 3
`
}

// noise returns n bytes that don't compress, the same for the same seed.
func noise(seed byte, n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// noiseLayer makes a layer with a single file of size incompressible bytes, by way of a file in dir: it may be large.
func noiseLayer(dir string, seed byte, size int64) (v1.Layer, error) {
	name := path.Join(dir, fmt.Sprintf("noise-%d.tar", seed))
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	h := &tar.Header{Name: "noise", Mode: 0o644, ModTime: packedOn, Typeflag: tar.TypeReg, Size: size}
	if err := w.WriteHeader(h); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(w, rand.NewChaCha8([32]byte{seed}), size); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(name, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.NoCompression))
}
