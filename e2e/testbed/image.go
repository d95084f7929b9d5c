package testbed

import (
	"context"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image as it lies in a registry.
type Image struct {
	// Repository is as in a request's path, such as library/hello.
	Repository, Tag string
	// Digest is that of what the tag names.
	Digest string
	// Manifests and Configs are the digests of the platforms' own, by architecture.
	Manifests, Configs map[string]string
	// Layers are the digests of all layers, in order; LayerSizes go with them.
	Layers     []string
	LayerSizes []int64
	// Bytes is the sum of its blobs.
	Bytes int64
}

func newImage(repository, tag string) Image {
	return Image{Repository: repository, Tag: tag, Manifests: map[string]string{}, Configs: map[string]string{}}
}

// ByTag names the image as clients do, without a registry.
func (i Image) ByTag() string { return i.Repository + ":" + i.Tag }

// ByDigest names exactly this image.
func (i Image) ByDigest() string { return i.Repository + "@" + i.Digest }

// Output is what a container of the image prints; only images that say hello do.
func (i Image) Output(arch string) string { return helloOutput(arch) }

// flavour is one of the two families of media types.
type flavour struct {
	manifest, config, layer types.MediaType
}

var (
	oci    = flavour{types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer}
	docker = flavour{types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer}
)

// PushIndex pushes the image that says hello for all architectures, as an OCI index.
func (b *Bed) PushIndex(ctx context.Context, r *Registry, repository, tag string) (Image, error) {
	i := newImage(repository, tag)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures {
		img, err := b.hello(oci, arch, repository)
		if err != nil {
			return Image{}, err
		}
		if err := i.account(img, arch); err != nil {
			return Image{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	digest, err := index.Digest()
	if err != nil {
		return Image{}, err
	}
	i.Digest = digest.String()
	ref, err := r.reference(i)
	if err != nil {
		return Image{}, err
	}
	return i, pushed(i, remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuth(r.auth), remote.WithTransport(r.transport)))
}

// PushDocker pushes the image that says hello for one architecture with Docker's own media types, which tools still
// produce.
func (b *Bed) PushDocker(ctx context.Context, r *Registry, repository, tag, arch string) (Image, error) {
	img, err := b.hello(docker, arch, repository)
	if err != nil {
		return Image{}, err
	}
	return r.push(ctx, img, newImage(repository, tag), arch)
}

// PushNoise pushes an image of one layer of size bytes. Images of different seeds share nothing.
func (b *Bed) PushNoise(ctx context.Context, r *Registry, repository, tag string, seed byte, size int64) (Image, error) {
	dir, err := b.Subdir("noise")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(dir) // once pushed, it need not take room twice
	layer, err := noiseLayer(dir, seed, size)
	if err != nil {
		return Image{}, err
	}
	img, err := assemble(oci, "amd64", repository, layer)
	if err != nil {
		return Image{}, err
	}
	return r.push(ctx, img, newImage(repository, tag), "amd64")
}

func (b *Bed) hello(f flavour, arch, title string) (v1.Image, error) {
	layers, err := helloLayers(f.layer, b.Programs.hello[arch])
	if err != nil {
		return nil, err
	}
	return assemble(f, arch, title, layers...)
}

// assemble makes an image of layers. Its title makes it another image than one of the same layers: clients that know
// images by their configuration would take the two for one.
func assemble(f flavour, arch, title string, layers ...v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, f.manifest), f.config)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS:           "linux",
		Architecture: arch,
		Created:      v1.Time{Time: packedOn},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/bin/hello"},
			Labels:     map[string]string{"org.opencontainers.image.title": title},
		},
	})
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		media, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: media}); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// push pushes a single image and fills in what i lacks.
func (r *Registry) push(ctx context.Context, img v1.Image, i Image, arch string) (Image, error) {
	if err := i.account(img, arch); err != nil {
		return Image{}, err
	}
	i.Digest = i.Manifests[arch]
	ref, err := r.reference(i)
	if err != nil {
		return Image{}, err
	}
	return i, pushed(i, remote.Write(ref, img, remote.WithContext(ctx), remote.WithAuth(r.auth), remote.WithTransport(r.transport)))
}

func pushed(i Image, err error) error {
	if err != nil {
		return fmt.Errorf("pushing %s: %w", i.ByTag(), err)
	}
	return nil
}

// account notes the digest and the blobs of img.
func (i *Image) account(img v1.Image, arch string) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	i.Manifests[arch] = digest.String()
	i.Configs[arch] = m.Config.Digest.String()
	i.Bytes += m.Config.Size
	for _, l := range m.Layers {
		i.Layers = append(i.Layers, l.Digest.String())
		i.LayerSizes = append(i.LayerSizes, l.Size)
		i.Bytes += l.Size
	}
	return nil
}

func (r *Registry) reference(i Image) (name.Reference, error) {
	return name.NewTag(r.Address+"/"+i.ByTag(), name.Insecure)
}
