package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// A containerd 2 that may fetch a layer's parts at once asks for the rest of the layer from many places at once, and
// hangs up on each answer after a part. All that costs upstream the layer once.
func TestContainerd2FetchesLayersInParts(t *testing.T) {
	const (
		size = 256 << 20
		part = 8 << 20
	)
	needRoot(t)
	programs, err := bed.BuildContainerd(running)
	if err != nil {
		t.Fatal(err)
	}
	image, err := bed.PushNoise(running, open, "library/parts", "1.0", 1, size)
	if err != nil {
		t.Fatal(err)
	}
	m := startMirror(t, open, nil)
	road, err := bed.OpenClientsGate(m.entrepot)
	if err != nil {
		t.Fatal(err)
	}
	c := newContainerd2(t, programs, road.Address(), part)

	c.pulls(t, image)
	asked := askedForInParts(t, road, 0, image.Layers[0], size/part)
	m.mark(t)
	layer := m.gate.Since(0).Of(image.Layers[0])
	if got, most := layer.Bytes(), image.Bytes+image.Bytes/20; got < size || got > most {
		t.Errorf("%d requests for parts cost %d bytes of the layer from upstream; the image has %d", len(asked), got, image.Bytes)
	}
	t.Logf("%d requests for parts took %.3f of the image's bytes from entrepot; %d requests upstream took %.3f",
		len(asked), float64(asked.Bytes())/float64(image.Bytes), len(layer), float64(layer.Bytes())/float64(image.Bytes))

	if err := m.entrepot.KeptBlob(running, image, image.Layers[0]); err != nil {
		t.Fatal(err)
	}
	mark, roadMark := m.mark(t), roadMark(t, road)
	if err := c.restart(running); err != nil {
		t.Fatal(err)
	}
	c.pulls(t, image)
	askedForInParts(t, road, roadMark, image.Layers[0], size/part)
	if again := m.gate.Since(mark).Content(); len(again) > 0 {
		t.Errorf("warm pull: content was fetched from upstream again: %v", again)
	}
}

// askedForInParts checks that a layer was asked for by range at least parts times since mark, which is what the client
// was set up to do, and that each answer was the part asked for. It returns the requests.
func askedForInParts(t *testing.T, road *testbed.Gate, mark int, layer string, parts int) testbed.Traffic {
	t.Helper()
	roadMark(t, road) // until all that the client has hung up on has ended
	asked := road.Since(mark).Of(layer)
	if len(asked) < parts {
		t.Errorf("containerd asked %d times for the layer, at least %d were expected: %v", len(asked), parts, asked)
	}
	for _, r := range asked {
		if r.Method != http.MethodGet || r.Range == "" || r.Status != http.StatusPartialContent {
			t.Errorf("%s of the layer, Range %q, was answered %d", r.Method, r.Range, r.Status)
		}
	}
	return asked
}

// roadMark waits until nothing is under way on road any more and returns its place.
func roadMark(t *testing.T, road *testbed.Gate) int {
	t.Helper()
	mark, err := road.Mark(running)
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// containerd2 pulls by the daemon's transfer service, where containerd pulls by ctr.
type containerd2 struct {
	*containerdDaemon
	hosts string
}

// newContainerd2 starts one whose mirror of Docker Hub is at an address and that fetches layers in parts of a size.
func newContainerd2(t *testing.T, programs testbed.Containerd, mirror string, part int) containerd2 {
	t.Helper()
	c := containerd2{containerdDaemon: newContainerdDaemon(t, programs)}
	c.hosts = filepath.Join(c.dir, "hosts")
	writeHosts(t, c.hosts, mirror)
	// Without the empty list it would read the machine's own configuration too. As to the disabled plugins, see
	// startContainerd.
	c.run(t, fmt.Sprintf(`version = 3
root = "%[1]s/store/root"
state = "%[1]s/store/state"
imports = []
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "%[1]s/sock"
[ttrpc]
  address = "%[1]s/sock.ttrpc"
[plugins.'io.containerd.transfer.v1.local']
  concurrent_layer_fetch_buffer = %[2]d
  max_concurrent_downloads = 3
`, c.dir, part))
	return c
}

// pulls pulls an image and checks what arrived: the daemon's word for the image, and its file of the layer.
func (c containerd2) pulls(t *testing.T, i testbed.Image) {
	t.Helper()
	name := "docker.io/" + i.ByTag()
	// The service does not read its own config_path, not in 2.4.2: what ctr hands on counts.
	if _, err := c.ctr(running, "images", "pull", "--hosts-dir", c.hosts, "--platform", "linux/amd64", name); err != nil {
		t.Fatal(err)
	}
	if digest, err := c.digest(running, name); err != nil {
		t.Fatal(err)
	} else if digest != i.Digest {
		t.Errorf("pulled %s, pushed was %s", digest, i.Digest)
	}
	if digest, err := c.hash(i.Layers[0]); err != nil {
		t.Error(err)
	} else if digest != i.Layers[0] {
		t.Errorf("the layer arrived with digest %s, pushed was %s", digest, i.Layers[0])
	}
}

// hash computes the digest of a blob in the daemon's store.
func (c containerd2) hash(digest string) (string, error) {
	algorithm, encoded, _ := strings.Cut(digest, ":")
	f, err := os.Open(filepath.Join(c.store, "root", "io.containerd.content.v1.content", "blobs", algorithm, encoded))
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}
