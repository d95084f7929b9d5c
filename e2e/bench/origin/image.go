package origin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Document is a manifest or a configuration: small, and as it is sent.
type Document struct {
	MediaType, Digest string
	Body              []byte
}

// Image is an index, one manifest in it, its configuration and its layers, in a repository of its own. One tag names the
// index, another the manifest.
type Image struct {
	Repository              string
	Tag, ManifestTag        string
	Index, Manifest, Config Document
	Layers                  []Blob
}

// Bytes is the size of all blobs of the image, the configuration included.
func (i Image) Bytes() int64 {
	n := int64(len(i.Config.Body))
	for _, l := range i.Layers {
		n += l.Size
	}
	return n
}

// ManifestPath is where the manifest is asked for by reference, BlobPath where a blob is.
func (i Image) ManifestPath(reference string) string {
	return "/v2/" + i.Repository + "/manifests/" + reference
}
func (i Image) BlobPath(digest string) string { return "/v2/" + i.Repository + "/blobs/" + digest }

// Store holds all images that the registry serves. Its methods may be called concurrently.
type Store struct {
	mu sync.Mutex
	// guards following
	blobs, pushes uint64
	images        map[string]Image   // that Image made, by repository
	served        map[string]content // by the end of the path, from the repository on
}

// Image returns the image of a repository, making it when it is first asked for. Endless layers have digests that are
// not theirs: for layers that no client reads to the end.
func (s *Store) Image(repository string, endless bool, layers ...int64) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.images[repository]; ok {
		return i, nil
	}
	var made []Blob
	for _, size := range layers {
		s.blobs++
		if endless {
			made = append(made, newEndless(s.blobs, size))
		} else {
			made = append(made, newBlob(s.blobs, size))
		}
	}
	// The repository is in the configuration: images of the same layers are different images.
	i, err := s.pushLocked(repository, "1.0", repository, made)
	if err != nil {
		return Image{}, err
	}
	if s.images == nil {
		s.images = map[string]Image{}
	}
	s.images[repository] = i
	return i, nil
}

// Blob makes a blob that no image has.
func (s *Store) Blob(size int64) Blob {
	s.mu.Lock()
	s.blobs++
	number := s.blobs
	s.mu.Unlock()
	return newBlob(number, size)
}

// Push makes an image of layers, which others may have too, that differs from all others, and lets the tag name it from now
// on. What the tag named before is served by its digests still.
func (s *Store) Push(repository, tag string, layers ...Blob) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushes++
	return s.pushLocked(repository, tag, fmt.Sprintf("%s:%s, push %d", repository, tag, s.pushes), layers)
}

func (s *Store) pushLocked(repository, tag, title string, layers []Blob) (Image, error) {
	i := Image{Repository: repository, Tag: tag, ManifestTag: tag + "-amd64", Layers: layers}
	if err := i.describe(title); err != nil {
		return Image{}, fmt.Errorf("making %s: %w", repository, err)
	}
	if s.served == nil {
		s.served = map[string]content{}
	}
	manifests, blobs := repository+"/manifests/", repository+"/blobs/"
	s.served[manifests+i.Tag] = content{kind: Manifests, document: i.Index}
	s.served[manifests+i.Index.Digest] = content{kind: Manifests, document: i.Index}
	s.served[manifests+i.ManifestTag] = content{kind: Manifests, document: i.Manifest}
	s.served[manifests+i.Manifest.Digest] = content{kind: Manifests, document: i.Manifest}
	s.served[blobs+i.Config.Digest] = content{kind: Configs, document: i.Config}
	for _, l := range layers {
		s.served[blobs+l.Digest] = content{kind: Layers, blob: l}
	}
	return i, nil
}

// describe makes the documents around the layers.
func (i *Image) describe(title string) error {
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	config := ocispec.Image{Platform: platform, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	config.Config.Labels = map[string]string{ocispec.AnnotationTitle: title}
	for _, l := range i.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.Digest(l.Digest))
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest(l.Digest), Size: l.Size,
		})
	}
	var err error
	if i.Config, err = document(ocispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	manifest.Config = i.Config.descriptor()
	if i.Manifest, err = document(ocispec.MediaTypeImageManifest, manifest); err != nil {
		return err
	}
	child := i.Manifest.descriptor()
	child.Platform = &platform
	i.Index, err = document(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{child},
	})
	return err
}

func document(mediaType string, v any) (Document, error) {
	body, err := json.Marshal(v)
	sum := sha256.Sum256(body)
	return Document{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Body: body}, err
}

// Content writes all of the document.
func (d Document) Content(w io.Writer) error {
	_, err := w.Write(d.Body)
	return err
}

func (d Document) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: int64(len(d.Body))}
}

// content is what a path names, by kind.
type content struct {
	kind     Kind
	document Document
	blob     Blob // if there is no document
}

// find returns what is asked for below a repository; what is "manifests" or "blobs".
func (s *Store) find(repository, what, reference string) (content, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.served[repository+"/"+what+"/"+reference]
	return c, ok
}
