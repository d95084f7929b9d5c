package cache

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPlatformsAreLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r := newReader(t, s, Options{ReadAhead: ReadManifests})
		n := 0
		pull := func(platform, ahead string) { // ahead is what is asked with the index, and platform what a client asks for then
			t.Helper()
			n++
			var images []ocispec.Descriptor
			at := map[string]ocispec.Descriptor{}
			for _, p := range []string{"unknown/unknown", "linux/amd64", "linux/arm64", "linux/arm64/v9", "linux/s390x", "linux/ppc64le", here} {
				if _, ok := at[p]; !ok {
					at[p] = s.put("", p, ocispec.MediaTypeImageManifest, fmt.Sprintf(`{"n":%d,"p":%q}`, n, p))
					images = append(images, at[p])
				}
			}
			index := s.index("index", images...)
			r.get(index)
			if got := strings.ReplaceAll(strings.ReplaceAll(s.asked(), "GET index", ""), "GET ", ""); strings.Trim(got, ", ") != ahead {
				t.Errorf("pull %d: read ahead %s, want %s", n, got, ahead)
			}
			r.get(at[platform])
			s.asked()
		}
		pull("unknown/unknown", here) // of which nothing is to be learnt
		pull("linux/s390x", here)
		pull("linux/s390x", "linux/s390x") // and not the machine's, which no client is of
		pull("linux/arm64/v9", "linux/s390x")
		pull("linux/arm64", "linux/arm64/v9, linux/s390x")
		pull("linux/amd64", "linux/arm64, linux/arm64/v9, linux/s390x")
		for _, ahead := range []string{
			"linux/amd64, linux/arm64, linux/arm64/v9", "linux/amd64, linux/arm64, linux/arm64/v9", "linux/amd64, linux/arm64, linux/arm64/v9",
			"linux/amd64, linux/arm64, linux/arm64/v9", "linux/amd64, linux/arm64, linux/arm64/v9", "linux/amd64, linux/arm64, linux/arm64/v9",
			"linux/amd64, linux/arm64", "linux/amd64", "linux/amd64",
		} {
			pull("linux/amd64", ahead)
		}
	})
}
