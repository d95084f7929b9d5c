package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// client is a container client whose registry mirror is an entrepot.
type client interface {
	// Fresh empties the client's store, as on a machine that was just set up.
	Fresh(ctx context.Context) error
	// Pull pulls linux/arch of reference, which is spelled without a registry (library/hello:1.0).
	Pull(ctx context.Context, reference, arch string) (pulled, error)
}

// runner is a client that can also run what it pulled, which shows that the layers arrived whole and in order.
type runner interface {
	// Run returns what a container of the image, which is there already, prints.
	Run(ctx context.Context, reference string) (string, error)
}

// pulled is what a client says of an image that it holds.
type pulled struct {
	// digest is that of the reference or of the platform's manifest, whichever the client keeps; config identifies
	// the platform's content.
	digest, config string
}

// newClient makes a client whose mirror of Docker Hub is at an address.
type newClient func(t *testing.T, mirror string) client

// tryClient is the scenario that every client goes through.
func tryClient(t *testing.T, open newClient) {
	t.Run("keeps what was pulled", func(t *testing.T) { keepsWhatWasPulled(t, open) })
	t.Run("serves stale tags while upstream is down", func(t *testing.T) { servesStaleTags(t, open) })
	t.Run("fetches private images with its own credentials", func(t *testing.T) { fetchesPrivateImages(t, open) })
}

func keepsWhatWasPulled(t *testing.T, newClient newClient) {
	m := startMirror(t, open, nil)
	s := steps{t: t, client: newClient(t, m.entrepot.Address)}

	s.pull("cold", images.index, images.index.ByTag(), native)
	s.wasFetchedOnce(m)
	s.runs(images.index)
	s.pull("other platform", images.index, images.index.ByTag(), foreign)
	s.pull("docker media types", images.docker, images.docker.ByTag(), native)
	s.runs(images.docker)

	mark := m.mark(t)
	s.fresh()
	s.pull("warm", images.index, images.index.ByTag(), native)
	if again := m.gate.Since(mark).Content(); len(again) > 0 {
		t.Errorf("warm pull: content was fetched from upstream again: %v", again)
	}
	s.lacks("library/unknown:1.0")

	if err := m.gate.Close(); err != nil {
		t.Fatal(err)
	}
	s.fresh()
	s.pull("upstream stopped, by tag", images.index, images.index.ByTag(), native)
	s.runs(images.index)
	s.fresh()
	s.pull("upstream stopped, by digest", images.index, images.index.ByDigest(), native)
	s.pull("upstream stopped, docker media types", images.docker, images.docker.ByTag(), native)
}

func servesStaleTags(t *testing.T, newClient newClient) {
	m := startMirror(t, open, func(upstream string) string {
		return configuration(upstream) + "cache: {tag_ttl: 1ms}\n"
	})
	s := steps{t: t, client: newClient(t, m.entrepot.Address)}

	s.pull("cold", images.index, images.index.ByTag(), native)
	m.mark(t)
	if err := m.gate.Close(); err != nil {
		t.Fatal(err)
	}
	s.fresh()
	s.pull("stale", images.index, images.index.ByTag(), native)
}

func fetchesPrivateImages(t *testing.T, newClient newClient) {
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	writeFile(t, password, secret.Password)
	m := startMirror(t, locked, func(upstream string) string {
		return configuration(upstream) + fmt.Sprintf("    credentials: {username: %s, password_file: %q}\n    expose: [library/**]\n", secret.Username, password)
	})
	refusesStrangers(t, m.gate)
	s := steps{t: t, client: newClient(t, m.entrepot.Address)}

	s.pull("cold", images.private, images.private.ByTag(), native)
	s.wasFetchedOnce(m)
	mark := m.mark(t)
	s.fresh()
	s.pull("warm", images.private, images.private.ByDigest(), native)
	if again := m.gate.Since(mark).Content(); len(again) > 0 {
		t.Errorf("warm pull: content was fetched from upstream again: %v", again)
	}
	log, err := m.entrepot.Log()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log, secret.Password) {
		t.Error("the password is in entrepot's log")
	}
}

// configuration is a file that makes upstream stand for Docker Hub. Its last line is in the registry's block.
func configuration(upstream string) string {
	return fmt.Sprintf("registries:\n  docker.io:\n    endpoints: [{url: %q}]\n", upstream)
}

// refusesStrangers makes sure that the registry behind gate is closed to those without a password: else a private
// pull would show nothing.
func refusesStrangers(t *testing.T, gate *testbed.Gate) {
	t.Helper()
	resp, err := http.Get(gate.URL() + "/v2/" + images.private.Repository + "/manifests/" + images.private.Tag)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("the locked registry answers %s without credentials", resp.Status)
	}
}

// steps are the moves of a scenario. One that fails ends it: the later ones build on it.
type steps struct {
	t      *testing.T
	client client
}

func (s steps) fresh() {
	s.t.Helper()
	if err := s.client.Fresh(running); err != nil {
		s.t.Fatal(err)
	}
}

// pull pulls reference and compares what arrived with what was pushed.
func (s steps) pull(step string, i testbed.Image, reference, arch string) {
	s.t.Helper()
	got, err := s.client.Pull(running, reference, arch)
	if err != nil {
		s.t.Fatalf("%s: %v", step, err)
	}
	if got.digest != i.Digest && got.digest != i.Manifests[arch] {
		s.t.Errorf("%s: digest is %s; pushed were %s and, for %s, %s", step, got.digest, i.Digest, arch, i.Manifests[arch])
	}
	if got.config != i.Configs[arch] {
		s.t.Errorf("%s: config is %s, pushed for %s was %s", step, got.config, arch, i.Configs[arch])
	}
}

// runs runs the image if the client can.
func (s steps) runs(i testbed.Image) {
	s.t.Helper()
	r, ok := s.client.(runner)
	if !ok {
		return
	}
	got, err := r.Run(running, i.ByTag())
	if err != nil {
		s.t.Fatal(err)
	}
	if want := i.Output(native); got != want {
		s.t.Errorf("the container printed\n%swant\n%s", got, want)
	}
}

// lacks checks that an image that upstream has not does not come from elsewhere: a pull that works is the mirror's.
func (s steps) lacks(reference string) {
	s.t.Helper()
	if got, err := s.client.Pull(running, reference, native); err == nil {
		s.t.Errorf("%s: pulled %v, though upstream lacks it", reference, got)
	}
}

// wasFetchedOnce checks that the first pull went through the gate, and each blob once.
func (s steps) wasFetchedOnce(m mirror) {
	s.t.Helper()
	m.mark(s.t)
	times := map[string]int{}
	for _, r := range m.gate.Since(0).Content() {
		times[r.Path]++
	}
	if len(times) == 0 {
		s.t.Error("cold pull: upstream was asked for nothing")
	}
	for path, n := range times {
		if n > 1 && strings.Contains(path, "/blobs/") {
			s.t.Errorf("cold pull: upstream was asked for %s %d times", path, n)
		}
	}
}
