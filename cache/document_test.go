package cache

import (
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestOfAPlatformLittleIsRead gives descriptors whose platforms would take far more memory than the document is charged.
func TestOfAPlatformLittleIsRead(t *testing.T) {
	for more, want := range map[string]*ocispec.Platform{
		``: {OS: "linux", Architecture: "arm", Variant: "v7"},
		`,"os.features":[` + strings.Repeat(`"",`, 1000) + `""],"os.version":"` + strings.Repeat("x", 1000) + `"`: {
			OS: "linux", Architecture: "arm", Variant: "v7"},
		`,"variant":"` + strings.Repeat("x", maxPlatform) + `"`: nil,
		`,"variant":7`: nil,
	} {
		body := `{"manifests":[{"mediaType":"x/y","digest":"` + digest.FromString("x").String() +
			`","platform":{"os":"linux","architecture":"arm","variant":"v7"` + more + `}}]}`
		doc, err := parseDocument(ocispec.MediaTypeImageIndex, []byte(body))
		if err != nil || len(doc.images) != 1 {
			t.Fatalf("%.200s: %v, %v", body, doc, err)
		}
		if got := doc.images[0].Platform; !reflect.DeepEqual(got, want) {
			t.Errorf("%.200s: read as %v, want %v", body, got, want)
		}
	}
}
