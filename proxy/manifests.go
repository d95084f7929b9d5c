package proxy

import (
	"bytes"
	"io"
	"net/http"

	"github.com/entrepot/entrepot/cache"
)

// manifest answers GET and HEAD of a manifest, by tag or by digest.
func (p *Proxy) manifest(w http.ResponseWriter, r *http.Request, c *call) error {
	ref := c.target.ref
	c.asked = true
	head := r.Method == http.MethodHead
	m, err := p.cache.Manifest(r.Context(), c.target.repo, ref, cache.ParseAccept(r.Header["Accept"]), head)
	if err != nil {
		return err
	}
	c.answered(m.Verdict)
	desc := m.Descriptor
	var content io.ReadSeeker = sized(desc.Size)
	if !head {
		content = bytes.NewReader(m.Body)
	}
	if ref.Tag != "" {
		c.set("Vary", "Accept")
	}
	return serve(w, r, c, desc.Digest, desc.MediaType, desc.Size, content)
}
