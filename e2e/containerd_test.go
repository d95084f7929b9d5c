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

func TestContainerd(t *testing.T) {
	needRoot(t)
	need(t, "containerd", "ctr", "runc")
	tryClient(t, newContainerd)
}

// containerd is a daemon of our own with ctr as its client.
type containerd struct {
	*containerdDaemon
	hosts      string
	containers int
}

func newContainerd(t *testing.T, mirror string) client {
	c := &containerd{containerdDaemon: startContainerd(t)}
	c.hosts = filepath.Join(c.dir, "hosts")
	writeHosts(t, c.hosts, mirror)
	return c
}

// writeHosts makes mirror the mirror of Docker Hub in the directory that containerd reads hosts from.
func writeHosts(t *testing.T, dir, mirror string) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "docker.io", "hosts.toml"), fmt.Sprintf(`server = "https://registry-1.docker.io"
[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, mirror))
}

// Fresh starts the daemon over on an empty store.
func (c *containerd) Fresh(ctx context.Context) error { return c.restart(ctx) }

func (c *containerd) Pull(ctx context.Context, reference, arch string) (pulled, error) {
	name := "docker.io/" + reference
	if _, err := c.ctr(ctx, "images", "pull", "--hosts-dir", c.hosts, "--platform", "linux/"+arch, name); err != nil {
		return pulled{}, err
	}
	digest, err := c.digest(ctx, name)
	if err != nil {
		return pulled{}, err
	}
	m, err := testbed.Descend(digest, arch, func(digest string) ([]byte, error) {
		text, err := c.ctr(ctx, "content", "get", digest)
		return []byte(text), err
	})
	return pulled{digest: digest, config: m.Config.Digest.String()}, err
}

// Run has the output written to a file by what runs the container: ctr itself, when that has ended, may leave before it has read all.
func (c *containerd) Run(ctx context.Context, reference string) (string, error) {
	c.containers++
	name := fmt.Sprintf("hello-%d", c.containers)
	output := filepath.Join(c.store, name+".log")
	if out, err := c.ctr(ctx, "run", "--rm", "--log-uri", "file://"+output, "--runc-root", filepath.Join(c.store, "runc"), "docker.io/"+reference, name); err != nil {
		return out, err
	}
	printed, err := os.ReadFile(output)
	return string(printed), err
}

// containerdDaemon is a containerd that shares nothing with one that the machine may run. dockerd uses it too.
type containerdDaemon struct {
	programs           testbed.Containerd
	dir, store, socket string
	process            *testbed.Process
}

// startContainerd starts the machine's containerd.
func startContainerd(t *testing.T) *containerdDaemon {
	t.Helper()
	d := newContainerdDaemon(t, testbed.Containerd{Server: "containerd", Client: "ctr"})
	// The disabled plugins would make directories in /opt and want a network.
	d.run(t, fmt.Sprintf(`version = 2
root = "%[1]s/store/root"
state = "%[1]s/store/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "%[1]s/sock"
[ttrpc]
  address = "%[1]s/sock.ttrpc"
`, d.dir))
	return d
}

func newContainerdDaemon(t *testing.T, programs testbed.Containerd) *containerdDaemon {
	t.Helper()
	dir := workDir(t, "containerd")
	return &containerdDaemon{
		programs: programs, dir: dir, store: filepath.Join(dir, "store"), socket: filepath.Join(dir, "sock"),
	}
}

// run writes the configuration and has the daemon running until the test ends.
func (d *containerdDaemon) run(t *testing.T, config string) {
	t.Helper()
	writeFile(t, filepath.Join(d.dir, "config.toml"), config)
	if err := d.start(running); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.process.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func (d *containerdDaemon) start(ctx context.Context) error {
	path, err := exec.LookPath(d.programs.Server)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.store, 0o755); err != nil {
		return err
	}
	d.process, err = testbed.Start(ctx, testbed.Command{
		Name: "containerd",
		Path: path,
		Args: []string{"--config", filepath.Join(d.dir, "config.toml")},
		Env:  isolated(d.dir),
		Log:  filepath.Join(d.dir, "log"),
		Ready: func(ctx context.Context) error {
			_, err := d.ctr(ctx, "version")
			return err
		},
	})
	return err
}

func (d *containerdDaemon) restart(ctx context.Context) error {
	if err := d.process.Stop(); err != nil {
		return err
	}
	if err := testbed.Sweep(d.store); err != nil {
		return err
	}
	return d.start(ctx)
}

func (d *containerdDaemon) ctr(ctx context.Context, args ...string) (string, error) {
	return testbed.Run(ctx, isolated(d.dir), d.programs.Client, append([]string{"--address", d.socket}, args...)...)
}

// digest finds an image in the list's third column.
func (d *containerdDaemon) digest(ctx context.Context, name string) (string, error) {
	list, err := d.ctr(ctx, "images", "list")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == name {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("%s is not in the list of images:\n%s", name, list)
}
