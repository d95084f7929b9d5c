package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/entrepot/entrepot/e2e/testbed"
)

func TestCrane(t *testing.T) {
	program, err := bed.BuildCrane(running)
	if err != nil {
		t.Fatal(err)
	}
	tryClient(t, func(t *testing.T, mirror string) client {
		dir := workDir(t, "crane")
		return &crane{program: program, dir: dir, mirror: mirror, image: filepath.Join(dir, "image")}
	})
}

func TestGoContainerRegistry(t *testing.T) { tryClient(t, newLibrary) }

// crane has no mirrors: it addresses entrepot as the registry.
type crane struct {
	program, dir, mirror, image string
}

func (c *crane) Fresh(context.Context) error { return os.RemoveAll(c.image) }

// Pull asks for the digest too, which crane does by HEAD.
func (c *crane) Pull(ctx context.Context, reference, arch string) (pulled, error) {
	ref := c.mirror + "/" + reference
	if err := c.Fresh(ctx); err != nil {
		return pulled{}, err
	}
	digest, err := testbed.Run(ctx, isolated(c.dir), c.program, "digest", ref)
	if err != nil {
		return pulled{}, err
	}
	_, err = testbed.Run(ctx, isolated(c.dir), c.program, "pull", "--format", "oci", "--platform", "linux/"+arch, ref, c.image)
	if err != nil {
		return pulled{}, err
	}
	index, err := layout.ImageIndexFromPath(c.image)
	if err != nil {
		return pulled{}, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return pulled{}, err
	}
	if len(list.Manifests) != 1 {
		return pulled{}, errors.New("crane did not store one image")
	}
	img, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		return pulled{}, err
	}
	return describe(strings.TrimSpace(digest), img)
}

// library is the code inside crane, and inside many tools that are not crane. It keeps nothing.
type library struct {
	mirror string
}

func newLibrary(_ *testing.T, mirror string) client { return library{mirror: mirror} }

func (library) Fresh(context.Context) error { return nil }

func (l library) Pull(ctx context.Context, reference, arch string) (pulled, error) {
	ref, err := name.ParseReference(l.mirror + "/" + reference)
	if err != nil {
		return pulled{}, err
	}
	d, err := remote.Get(ref, remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
	if err != nil {
		return pulled{}, err
	}
	img, err := d.Image()
	if err != nil {
		return pulled{}, err
	}
	return describe(d.Digest.String(), img)
}

// describe reads all of img, checks it against its digests, and names it.
func describe(digest string, img v1.Image) (pulled, error) {
	if err := validate.Image(img); err != nil {
		return pulled{}, err
	}
	config, err := img.ConfigName()
	return pulled{digest: digest, config: config.String()}, err
}
