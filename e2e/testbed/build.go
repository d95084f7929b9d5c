package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	module = "github.com/entrepot/entrepot/e2e"
	// The tools of go.mod: the reference implementation of a registry, and a client that needs no daemon.
	registryPackage = "github.com/distribution/distribution/v3/cmd/registry"
	cranePackage    = "github.com/google/go-containerregistry/cmd/crane"
	helloPackage    = module + "/testbed/hello"
	// The tools of containerd2/go.mod.
	containerdPackage = "github.com/containerd/containerd/v2/cmd/containerd"
	ctrPackage        = "github.com/containerd/containerd/v2/cmd/ctr"
	// containerdTags leave out what pulling an image has no use for: it shortens the build.
	containerdTags = "no_cri,no_btrfs,no_devmapper,no_zfs,no_tracing,no_rdt,no_systemd,urfave_cli_no_docs"

	// binaryVariable names an entrepot to try instead of the one built from this tree.
	binaryVariable = "ENTREPOT_BIN"
)

// architectures are those that an index image is built for.
var architectures = []string{"amd64", "arm64"}

// Programs are the paths of the programs of a trial.
type Programs struct {
	Entrepot, Registry string
	// hello is the images' program by architecture.
	hello map[string]string
}

// build compiles all programs into dir, at versions that this module's go.mod fixes.
func build(ctx context.Context, dir string) (Programs, error) {
	root, err := moduleDir(ctx)
	if err != nil {
		return Programs{}, err
	}
	p := Programs{
		Entrepot: os.Getenv(binaryVariable),
		Registry: filepath.Join(dir, "registry"),
		hello:    map[string]string{},
	}
	if p.Entrepot == "" {
		p.Entrepot = filepath.Join(dir, "entrepot")
		if err := goBuild(ctx, filepath.Dir(root), p.Entrepot, "./cmd/entrepot"); err != nil {
			return Programs{}, err
		}
	}
	if err := goBuild(ctx, root, p.Registry, registryPackage); err != nil {
		return Programs{}, err
	}
	for _, arch := range architectures {
		p.hello[arch] = filepath.Join(dir, "hello-"+arch)
		err := goBuild(ctx, root, p.hello[arch], helloPackage, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if err != nil {
			return Programs{}, err
		}
	}
	return p, nil
}

// BuildBench compiles one of the benchmark's own programs, named by its directory below e2e/bench, as entrepot is built,
// and returns its path.
func (b *Bed) BuildBench(ctx context.Context, name string) (string, error) {
	root, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.Dir, "bin", name)
	return path, goBuild(ctx, filepath.Join(root, "bench", name), path, ".")
}

// BuildCrane compiles the crane client and returns its path.
func (b *Bed) BuildCrane(ctx context.Context) (string, error) {
	root, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.Dir, "bin", "crane")
	return path, goBuild(ctx, root, path, cranePackage)
}

// Containerd is a containerd 2 and the ctr that belongs to it: an older one lacks its transfer service.
type Containerd struct {
	Server, Client string
}

// BuildContainerd compiles them, at the version that containerd2/go.mod fixes.
func (b *Bed) BuildContainerd(ctx context.Context) (Containerd, error) {
	root, err := moduleDir(ctx)
	if err != nil {
		return Containerd{}, err
	}
	var (
		module = filepath.Join(root, "containerd2")
		bin    = filepath.Join(b.Dir, "bin")
		c      = Containerd{Server: filepath.Join(bin, "containerd2"), Client: filepath.Join(bin, "ctr2")}
	)
	if err := goBuildTagged(ctx, module, c.Server, containerdPackage, containerdTags, "CGO_ENABLED=0"); err != nil {
		return Containerd{}, err
	}
	return c, goBuildTagged(ctx, module, c.Client, ctrPackage, containerdTags, "CGO_ENABLED=0")
}

// moduleDir finds this module's source. It needs a working directory inside it, which go test and go run give.
func moduleDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("finding the source of %s (run this from within it): %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// goBuild builds one package as seen from the module at dir.
func goBuild(ctx context.Context, dir, out, pkg string, env ...string) error {
	return goBuildTagged(ctx, dir, out, pkg, "", env...)
}

// goBuildTagged is goBuild with build tags. Symbols are left out: they double the linker's work.
func goBuildTagged(ctx context.Context, dir, out, pkg, tags string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", dir, "-tags", tags, "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, msg)
	}
	return nil
}
