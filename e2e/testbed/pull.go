package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// accepted are the manifests that [Pull] understands.
var accepted = []types.MediaType{
	types.OCIImageIndex, types.OCIManifestSchema1, types.DockerManifestList, types.DockerManifestSchema2,
}

// maxManifest bounds what is read as a manifest.
const maxManifest = 4 << 20

// Answer is what one request was answered.
type Answer struct {
	Path   string
	Header http.Header
	Bytes  int64
	Digest string
	// Took is the time to the last byte; FirstByte that to the first.
	FirstByte, Took time.Duration
}

// Verdict is the Cache-Status header without the cache's name.
func (a Answer) Verdict() string { return verdict(a.Header) }

func verdict(h http.Header) string { return strings.TrimPrefix(h.Get("Cache-Status"), "entrepot; ") }

// Pulled is a pull that succeeded.
type Pulled struct {
	// Digest of what the reference named.
	Digest  string
	Answers []Answer
	Took    time.Duration
}

// Bytes is the sum of the bodies.
func (p Pulled) Bytes() int64 {
	var n int64
	for _, a := range p.Answers {
		n += a.Bytes
	}
	return n
}

// Pull fetches an image for arch from the registry at base like the plainest of clients: one request after the
// other, each body checked against its digest and dropped. The reference is a tag or a digest.
func Pull(ctx context.Context, base, repository, reference, arch string) (Pulled, error) {
	start := time.Now()
	p := puller{ctx: ctx, base: base + "/v2/" + repository}
	result := Pulled{}
	m, err := Descend(reference, arch, func(reference string) ([]byte, error) {
		body, a, err := p.manifest(reference)
		if result.Digest == "" {
			result.Digest = a.Digest
		}
		return body, err
	})
	if err != nil {
		return Pulled{}, err
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if _, err := p.fetch("/blobs/"+d.Digest.String(), d.Digest.String(), io.Discard); err != nil {
			return Pulled{}, err
		}
	}
	result.Answers, result.Took = p.answers, time.Since(start)
	return result, nil
}

// Descend finds arch's manifest from reference on, by way of an index if that is what reference names. Manifests come
// from get: a registry, or a client's store.
func Descend(reference, arch string, get func(reference string) ([]byte, error)) (v1.Manifest, error) {
	body, err := get(reference)
	if err != nil {
		return v1.Manifest{}, err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(body, &index); err != nil {
		return v1.Manifest{}, fmt.Errorf("manifest %s: %w", reference, err)
	}
	if len(index.Manifests) > 0 {
		for _, d := range index.Manifests {
			if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch {
				return Descend(d.Digest.String(), arch, get)
			}
		}
		return v1.Manifest{}, fmt.Errorf("index %s: no manifest for linux/%s", reference, arch)
	}
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return v1.Manifest{}, fmt.Errorf("manifest %s: %w", reference, err)
	}
	return m, nil
}

type puller struct {
	ctx     context.Context
	base    string
	answers []Answer
}

// manifest gets a manifest by tag or digest. That of a tag has to have the digest that the answer claims.
func (p *puller) manifest(reference string) ([]byte, Answer, error) {
	var body strings.Builder
	want := ""
	if strings.Contains(reference, ":") {
		want = reference
	}
	a, err := p.fetch("/manifests/"+reference, want, &body)
	if err == nil && a.Header.Get("Docker-Content-Digest") != a.Digest {
		err = fmt.Errorf("GET %s: body has digest %s, header says %q", a.Path, a.Digest, a.Header.Get("Docker-Content-Digest"))
	}
	return []byte(body.String()), a, err
}

// fetch gets one body and checks it against want, if there is one.
func (p *puller) fetch(path, want string, into io.Writer) (Answer, error) {
	req, err := http.NewRequestWithContext(p.ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return Answer{}, err
	}
	for _, t := range accepted {
		req.Header.Add("Accept", string(t))
	}
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	a := Answer{Path: req.URL.Path, Header: resp.Header, FirstByte: time.Since(start)}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // only for the message
		return Answer{}, fmt.Errorf("GET %s: %s: %s", a.Path, resp.Status, strings.TrimSpace(string(text)))
	}
	body := io.Reader(resp.Body)
	if into != io.Discard {
		body = io.LimitReader(body, maxManifest)
	}
	hash := sha256.New()
	if a.Bytes, err = io.Copy(io.MultiWriter(hash, into), body); err != nil {
		return Answer{}, fmt.Errorf("GET %s: after %d bytes: %w", a.Path, a.Bytes, err)
	}
	a.Took, a.Digest = time.Since(start), "sha256:"+hex.EncodeToString(hash.Sum(nil))
	if want != "" && a.Digest != want {
		return Answer{}, fmt.Errorf("GET %s: body has digest %s, not the one asked for", a.Path, a.Digest)
	}
	p.answers = append(p.answers, a)
	return a, nil
}
