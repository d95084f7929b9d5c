package cache

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestAccept(t *testing.T) {
	const index, manifest = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"
	for name, test := range map[string]struct {
		headers []string
		takes   map[string]bool
	}{
		"none":           {nil, map[string]bool{index: true, manifest: true}},
		"empty":          {[]string{""}, map[string]bool{index: true}},
		"one line":       {[]string{manifest}, map[string]bool{manifest: true, index: false}},
		"several lines":  {[]string{"application/json", manifest, index}, map[string]bool{manifest: true, index: true, "text/html": false}},
		"one line, list": {[]string{manifest + ", " + index + ";q=0.5"}, map[string]bool{manifest: true, index: true}},
		"anything":       {[]string{"text/html", "*/*"}, map[string]bool{manifest: true, "x/y": true}},
		"a kind":         {[]string{"application/*"}, map[string]bool{manifest: true, "text/html": false}},
		"refused":        {[]string{manifest, index + "; q=0"}, map[string]bool{manifest: true, index: false}},
		"refused, 0.0":   {[]string{manifest, index + ";q=0.00"}, map[string]bool{index: false}},
		"case, charset":  {[]string{"Application/VND.oci.image.Manifest.v1+JSON"}, map[string]bool{manifest + "; charset=utf-8": true}},
	} {
		t.Run(name, func(t *testing.T) {
			a := ParseAccept(test.headers)
			for mediaType, want := range test.takes {
				if got := a.takes(mediaType); got != want {
					t.Errorf("takes(%s) = %v", mediaType, got)
				}
			}
		})
	}
}

func TestOrderOfAcceptIsNoMatter(t *testing.T) {
	a, b := ParseAccept([]string{"b/b", "a/a", "b/b"}), ParseAccept([]string{"a/a, b/b"})
	if a.String() != b.String() {
		t.Errorf("%s and %s", a, b)
	}
}

func TestNamedContent(t *testing.T) {
	const image, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	d := digest.FromString("x").String()
	for _, test := range []struct {
		mediaType, body string
		want            int // -1: refused
	}{
		{image, `{}`, 0},
		{image, `{"layers":null,"config":null,"manifests":null}`, 0},
		{image, `{"config":{"digest":"` + d + `"},"layers":[{"digest":"` + d + `","size":5}]}`, 2},
		{image, `{"manifests":[{"digest":"` + d + `"}]}`, 0}, // no part of an image: its registry need not have looked
		{image, `{"blobs":[{"digest":"` + d + `"}],"subject":{"digest":"` + d + `"}}`, 0},
		{image, `{"Layers":[{"digest":"` + d + `"}]}`, 0},
		{image, `{"layers":[{"Digest":"` + d + `"}]}`, 0},
		{image, `{"layers":[],"layers":[{"digest":"` + d + `"}]}`, -1},
		{image, `{"layers":[{"digest":"sha256:short"},{"digest":"../../etc"},{"digest":""},{"digest":5},{}]}`, 0},
		{image, `{"layers":[{"digest":"` + d + `","size":-1}]}`, 0},
		{image, `{"layers":[{"digest":"` + d + `","urls":["https://elsewhere.example/layer"]}]}`, 0},
		{image, `{"layers":{"digest":"` + d + `"}}`, -1},
		{image, `[]`, -1},
		{image, `"x"`, -1},
		{image, `{"layers":[]} {"layers":[]}`, -1},
		{image, `{"layers":[`, -1},
		{image, `{"layers":[` + strings.Repeat("{},", maxNamed) + `{}]}`, -1},
		{index, `{"manifests":[{"digest":"` + d + `"}],"config":{"digest":"` + d + `"}}`, 1},
		{"application/vnd.example+json", `{"manifests":[{"digest":"` + d + `"}],"layers":[{"digest":"` + d + `"}]}`, 0},
	} {
		doc, err := parseDocument(test.mediaType, []byte(test.body))
		if got := len(doc.named()); err == nil && got != test.want || (err != nil) != (test.want < 0) {
			t.Errorf("%s %.100s names %d, %v", test.mediaType, test.body, got, err)
		}
	}
}

// TestManifestBombCostsLittle parses what is small in bytes and large in numbers.
func TestManifestBombCostsLittle(t *testing.T) {
	bomb := []byte(`{"manifests":[` + strings.Repeat("{},", 2_700_000) + `{}]}`)
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err := parseDocument(manifestTypes[0], bomb); err == nil {
				b.Error("it is taken")
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 32<<20 {
		t.Errorf("%d MiB for one manifest", allocated>>20)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:0","size":1},"layers":[{}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","platform":{}}]}`))
	f.Add([]byte(`{"manifests":[{"size":1},{"digest":"a:b"},{"digest":"sha256:..//index/MANIFEST"}]}`))
	f.Add([]byte(`[[[[[[`))
	f.Add([]byte(`{"layers":{"0":{}},"config":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, mediaType := range manifestTypes {
			doc, err := parseDocument(mediaType, body)
			if err == nil && !json.Valid(body) {
				t.Errorf("%q is taken", body)
			}
			for _, desc := range doc.named() {
				if desc.Digest.Validate() != nil || desc.Size < 0 {
					t.Errorf("named %+v", desc)
				}
			}
		}
	})
}
