package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// running ends when the tests are interrupted. They use it for all that they start and wait for, so that they then
// fail at once one after the other, and clear up after themselves as always.
var running context.Context

// The fixtures that all tests share and none changes.
var (
	bed *testbed.Bed
	// open is the registry that anybody may read, locked the one that wants secret.
	open, locked *testbed.Registry
	secret       = testbed.Credentials{Username: "ci", Password: "correct-horse-battery-staple"}
	images       struct {
		// index is for two platforms, docker in Docker's own media types, both in open; private is in locked.
		index, docker, private testbed.Image
	}
)

// native and foreign are this machine's architecture and another one that the images are built for.
var native, foreign = architectures()

func architectures() (native, foreign string) {
	if runtime.GOARCH == "arm64" {
		return "arm64", "amd64"
	}
	return "amd64", "arm64"
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var cancel context.CancelFunc
	running, cancel = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	code := 1
	err := setUp(running)
	if err == nil {
		code = m.Run()
	}
	if bed != nil {
		err = errors.Join(err, bed.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}

func setUp(ctx context.Context) (err error) {
	if bed, err = testbed.New(ctx); err != nil {
		return err
	}
	if open, err = bed.StartRegistry(ctx, nil); err != nil {
		return err
	}
	if locked, err = bed.StartRegistry(ctx, &secret); err != nil {
		return err
	}
	if images.index, err = bed.PushIndex(ctx, open, "library/hello", "1.0"); err != nil {
		return err
	}
	if images.docker, err = bed.PushDocker(ctx, open, "library/hello-docker", "1.0", native); err != nil {
		return err
	}
	images.private, err = bed.PushIndex(ctx, locked, "library/hello-private", "1.0")
	return err
}

// mirror is an entrepot before one of the registries, with a gate between them.
type mirror struct {
	gate     *testbed.Gate
	entrepot *testbed.Entrepot
}

// startMirror starts an entrepot on an empty cache. The configuration is a text made from the gate's URL, or nil for
// flags alone.
func startMirror(t *testing.T, r *testbed.Registry, config func(upstream string) string) mirror {
	t.Helper()
	gate, err := bed.OpenGate(r)
	if err != nil {
		t.Fatal(err)
	}
	options := testbed.EntrepotOptions{Upstream: gate.URL()}
	if config != nil {
		options = testbed.EntrepotOptions{Config: config(gate.URL())}
	}
	return mirror{gate: gate, entrepot: startEntrepot(t, options)}
}

// startEntrepot starts an entrepot on an empty cache. It has to end well when the test does.
func startEntrepot(t *testing.T, options testbed.EntrepotOptions) *testbed.Entrepot {
	t.Helper()
	e, err := bed.StartEntrepot(running, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			log, err := e.Log()
			t.Logf("entrepot's log (%v):\n%s", err, log)
		}
	})
	return e
}

// mark returns the gate's place once nothing is under way any more.
func (m mirror) mark(t *testing.T) int {
	t.Helper()
	mark, err := m.gate.Mark(running)
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// workDir returns a directory for a client's store. It is cleared of processes and mounts before it is removed.
func workDir(t *testing.T, name string) string {
	t.Helper()
	dir, err := bed.Subdir(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testbed.Sweep(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// needRoot fails the test if it is not run by root.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this client needs root, to mount layers and make containers; remedy: run the tests as root")
	}
}

// need fails the test if a program is missing. A client that is not tried is not a pass.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing; remedy: sh install.sh (%v)", p, err)
		}
	}
}

// isolated is the environment of every client: no settings or credentials of the machine's user, and a dead proxy on
// the way to any host but loopback (which Go programs never proxy), so that a fall-back to Docker Hub fails at once.
func isolated(home string) []string {
	return []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + home, "DOCKER_CONFIG=" + home,
		"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1",
		"http_proxy=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1",
		"NO_PROXY=", "no_proxy=",
	}
}

// writeFile is os.WriteFile for configuration that a test can't go on without.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
