package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// document is what the cache reads of a manifest or an index: what it is made of, as far as its media type says so. The
// rest, and the bytes themselves, are the clients' matter. All descriptors in it are well-formed. It has images or parts, not
// both, and is shared: nobody changes it.
type document struct {
	images []ocispec.Descriptor // of an index
	config []ocispec.Descriptor // of an image: one at most
	layers []ocispec.Descriptor // of an image
}

// named is the content that belongs to the document.
func (d document) named() []ocispec.Descriptor { return slices.Concat(d.images, d.config, d.layers) }

// groups are the same, and cost nothing.
func (d document) groups() [3][]ocispec.Descriptor {
	return [3][]ocispec.Descriptor{d.images, d.config, d.layers}
}

// namesOf is what content is made of, if it is a manifest or an index; as which of the two it was pushed is not asked.
func namesOf(content []byte) (names []digest.Digest) {
	for _, mediaType := range []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest} {
		doc, err := parseDocument(mediaType, content)
		if err != nil {
			return nil
		}
		for _, desc := range doc.named() {
			names = append(names, desc.Digest)
		}
	}
	return names
}

// cost is about how many bytes of memory the document takes.
func (d document) cost() (n int64) {
	const descriptor = int64(unsafe.Sizeof(ocispec.Descriptor{}) + unsafe.Sizeof(ocispec.Platform{}) + maxPlatform)
	for _, group := range d.groups() {
		for _, desc := range group {
			n += descriptor + int64(len(desc.MediaType)+len(desc.Digest))
		}
	}
	return n
}

// maxNamed is how many descriptors a manifest may hold: far more than any image has. Each costs a record.
const maxNamed = 10_000

// fieldsOf says in which fields of a document its content is named. A registry checks these when the document is pushed;
// other fields it passes over, so that they prove nothing.
func fieldsOf(mediaType string) map[string]bool {
	switch mediaType {
	case ocispec.MediaTypeImageIndex, dockerList:
		return map[string]bool{"manifests": true}
	case ocispec.MediaTypeImageManifest, dockerManifest:
		return map[string]bool{"config": true, "layers": true}
	}
	return nil
}

// parseDocument reads a manifest of that type: foreign bytes. It must be one JSON object, with no field of interest given
// twice, for parsers differ in which they take.
func parseDocument(mediaType string, body []byte) (doc document, err error) {
	fields, seen := fieldsOf(mediaType), make(map[string]bool)
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := expect(dec, '{'); err != nil {
		return document{}, err
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return document{}, err
		}
		name, _ := token.(string)
		if !fields[name] {
			err = skip(dec)
		} else if seen[name] {
			err = fmt.Errorf("field %q is there twice", name)
		} else {
			err = doc.read(dec, name)
		}
		if err != nil {
			return document{}, err
		}
		seen[name] = fields[name]
	}
	if err := expect(dec, '}'); err != nil {
		return document{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return document{}, errors.New("more than one JSON value")
	}
	return doc, nil
}

// read takes one field.
func (d *document) read(dec *json.Decoder, name string) error {
	switch name {
	case "manifests":
		return descriptors(dec, &d.images)
	case "layers":
		return descriptors(dec, &d.layers)
	}
	return descriptor(dec, &d.config)
}

// descriptors reads an array of descriptors, or null.
func descriptors(dec *json.Decoder, to *[]ocispec.Descriptor) error {
	token, err := dec.Token()
	if err != nil || token == nil {
		return err
	}
	if token != json.Delim('[') {
		return errors.New("descriptors are no array")
	}
	for n := 0; dec.More(); n++ {
		if n == maxNamed {
			return fmt.Errorf("more than %d descriptors", maxNamed)
		}
		if err := descriptor(dec, to); err != nil {
			return err
		}
	}
	return expect(dec, ']')
}

// descriptor reads a descriptor, or null, and takes it if it is well-formed and its content lies in the registry: what has
// URLs lies elsewhere, and a registry need not have seen it. Names of fields are taken as they are written: encoding/json
// would take "DIGEST" for "digest".
func descriptor(dec *json.Decoder, to *[]ocispec.Descriptor) error {
	var fields map[string]json.RawMessage
	if err := dec.Decode(&fields); err != nil {
		return err
	}
	var mediaType, d string
	var size int64
	wellFormed := true
	for name, v := range map[string]any{"mediaType": &mediaType, "digest": &d, "size": &size} {
		if raw, ok := fields[name]; ok && json.Unmarshal(raw, v) != nil {
			wellFormed = false
		}
	}
	urls := string(fields["urls"])
	elsewhere := urls != "" && urls != "null" && urls != "[]"
	if wellFormed && !elsewhere && size >= 0 && len(mediaType) < 256 && digest.Digest(d).Validate() == nil {
		*to = append(*to, ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(d), Size: size, Platform: readPlatform(fields)})
	}
	return nil
}

// readPlatform is what a descriptor says that its content is for, as far as it matters here; nil if it does not, or not so that
// it can be read, or at a length that no platform has. The rest would cost memory that the document's size does not tell of: an
// empty string in a list takes three bytes as JSON and sixteen when it was read.
func readPlatform(fields map[string]json.RawMessage) *ocispec.Platform {
	var p *struct{ OS, Architecture, Variant string }
	raw, ok := fields["platform"]
	if !ok || json.Unmarshal(raw, &p) != nil || p == nil || len(p.OS)+len(p.Architecture)+len(p.Variant) > maxPlatform {
		return nil
	}
	return &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

func expect(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%v where %v should be", token, want)
	}
	return err
}

// skip passes over one value without keeping it.
func skip(dec *json.Decoder) error {
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}
