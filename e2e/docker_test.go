package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

func TestDocker(t *testing.T) {
	needRoot(t)
	need(t, "dockerd", "docker", "containerd", "ctr", "runc")
	tryClient(t, newDocker)
}

// docker is a daemon of our own, and the command line that talks to it.
type docker struct {
	dir, store, socket string
	containerd         *containerdDaemon
	process            *testbed.Process
}

func newDocker(t *testing.T, mirror string) client {
	dir := workDir(t, "docker")
	d := &docker{
		dir:        dir,
		store:      filepath.Join(dir, "store"),
		socket:     "unix://" + filepath.Join(dir, "sock"),
		containerd: startContainerd(t),
	}
	writeFile(t, filepath.Join(dir, "daemon.json"), fmt.Sprintf(`{"registry-mirrors": ["http://%s"]}`, mirror))
	if err := d.start(running); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.process.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// start starts the daemon without a network for containers: it would need the machine's firewall.
func (d *docker) start(ctx context.Context) error {
	path, err := exec.LookPath("dockerd")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.store, 0o755); err != nil {
		return err
	}
	d.process, err = testbed.Start(ctx, testbed.Command{
		Name: "dockerd",
		Path: path,
		Args: []string{
			"--config-file", filepath.Join(d.dir, "daemon.json"), "--host", d.socket,
			"--data-root", filepath.Join(d.store, "data"), "--exec-root", filepath.Join(d.store, "exec"),
			"--pidfile", filepath.Join(d.store, "pid"), "--containerd", d.containerd.socket,
			"--bridge=none", "--iptables=false", "--ip-forward=false",
		},
		Env: isolated(d.dir),
		Log: filepath.Join(d.dir, "log"),
		Ready: func(ctx context.Context) error {
			_, err := d.docker(ctx, "version")
			return err
		},
	})
	return err
}

// Fresh starts the daemon over on an empty store. Removing the images is not enough: it keeps manifests by digest.
func (d *docker) Fresh(ctx context.Context) error {
	if err := d.process.Stop(); err != nil {
		return err
	}
	if err := testbed.Sweep(d.store); err != nil {
		return err
	}
	return d.start(ctx)
}

func (d *docker) Pull(ctx context.Context, reference, arch string) (pulled, error) {
	name := "docker.io/" + reference
	out, err := d.docker(ctx, "pull", "--platform", "linux/"+arch, name)
	if err != nil {
		return pulled{}, err
	}
	var p pulled
	for line := range strings.Lines(out) {
		if digest, ok := strings.CutPrefix(line, "Digest: "); ok {
			p.digest = strings.TrimSpace(digest)
		}
	}
	id, err := d.docker(ctx, "image", "inspect", "--format", "{{.Id}}", name)
	p.config = strings.TrimSpace(id)
	return p, err
}

func (d *docker) Run(ctx context.Context, reference string) (string, error) {
	return d.docker(ctx, "run", "--rm", "--network", "none", "docker.io/"+reference)
}

func (d *docker) docker(ctx context.Context, args ...string) (string, error) {
	return testbed.Run(ctx, isolated(d.dir), "docker", append([]string{"--host", d.socket}, args...)...)
}
