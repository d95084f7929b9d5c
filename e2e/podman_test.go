package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

func TestPodman(t *testing.T) {
	needRoot(t)
	need(t, "podman", "conmon")
	tryClient(t, newPodman)
}

// podman is the podman command with a store and a configuration of its own.
type podman struct {
	dir, store string
	env        []string
}

func newPodman(t *testing.T, mirror string) client {
	dir := workDir(t, "podman")
	p := &podman{dir: dir, store: filepath.Join(dir, "store")}
	p.env = append(isolated(dir), containersImageFiles(t, dir, mirror)...)
	// No systemd to own control groups, no journal, and no locks in the memory that all podmans share.
	writeFile(t, filepath.Join(dir, "containers.conf"), `[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
`)
	p.env = append(p.env, "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"))
	return p
}

// containersImageFiles writes the files that podman and skopeo share, and returns the variables that name them.
func containersImageFiles(t *testing.T, dir, mirror string) []string {
	t.Helper()
	writeFile(t, filepath.Join(dir, "registries.conf"), fmt.Sprintf(`unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "%s"
insecure = true
`, mirror))
	writeFile(t, filepath.Join(dir, "policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
	writeFile(t, filepath.Join(dir, "auth.json"), "{}")
	return []string{
		"CONTAINERS_REGISTRIES_CONF=" + filepath.Join(dir, "registries.conf"),
		"REGISTRY_AUTH_FILE=" + filepath.Join(dir, "auth.json"),
	}
}

// Fresh needs no restart: podman has no daemon.
func (p *podman) Fresh(context.Context) error { return testbed.Sweep(p.store) }

func (p *podman) Pull(ctx context.Context, reference, arch string) (pulled, error) {
	name := "docker.io/" + reference
	policy := filepath.Join(p.dir, "policy.json")
	if _, err := p.podman(ctx, "pull", "--signature-policy", policy, "--platform", "linux/"+arch, name); err != nil {
		return pulled{}, err
	}
	out, err := p.podman(ctx, "image", "inspect", name)
	if err != nil {
		return pulled{}, err
	}
	var held []struct{ Digest, ID string }
	if err := json.Unmarshal([]byte(out), &held); err != nil {
		return pulled{}, err
	}
	if len(held) != 1 {
		return pulled{}, fmt.Errorf("podman knows %d images %s", len(held), name)
	}
	return pulled{digest: held[0].Digest, config: "sha256:" + strings.TrimPrefix(held[0].ID, "sha256:")}, nil
}

// Run gives limits that every machine allows: podman's own defaults exceed what some let even root have.
func (p *podman) Run(ctx context.Context, reference string) (string, error) {
	return p.podman(ctx, "run", "--rm", "--pull", "never", "--network", "none",
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "docker.io/"+reference)
}

// podman uses plain copies of layers as its store, which works on every file system.
func (p *podman) podman(ctx context.Context, args ...string) (string, error) {
	return testbed.Run(ctx, p.env, "podman", append([]string{
		"--root", filepath.Join(p.store, "root"), "--runroot", filepath.Join(p.store, "run"),
		"--tmpdir", filepath.Join(p.store, "tmp"), "--storage-driver", "vfs",
	}, args...)...)
}
