package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
)

// tags answers tags/list. Paging is upstream's: the page asked for is the page that upstream gives.
func (p *Proxy) tags(w http.ResponseWriter, r *http.Request, c *call) error {
	query, err := pageQuery(r)
	if err != nil {
		return err
	}
	c.asked = true
	l, err := p.cache.List(r.Context(), c.target.repo, "tags/list", query)
	if err != nil {
		return err
	}
	return p.list(w, r, c, l, "application/json", l.Body, nil)
}

// referrers answers the referrers API. The filter is applied here, so that one answer of upstream's serves all filters.
func (p *Proxy) referrers(w http.ResponseWriter, r *http.Request, c *call) error {
	d := c.target.ref.Digest
	query, err := pageQuery(r)
	if err != nil {
		return err
	}
	filter, kept := query.Get("artifactType"), url.Values{}
	query.Del("artifactType")
	c.asked = true
	l, err := p.cache.List(r.Context(), c.target.repo, "referrers/"+d.String(), query)
	if err != nil {
		return err
	}
	body := l.Body
	if filter != "" {
		if body, err = filterReferrers(body, filter); err != nil {
			return err
		}
		w.Header().Set("OCI-Filters-Applied", "artifactType")
		kept.Set("artifactType", filter)
	}
	return p.list(w, r, c, l, ocispec.MediaTypeImageIndex, body, kept)
}

// What a query for a page may hold, for each one that is another gets a record of its own in the cache.
const (
	maxPageQuery = 1024 // bytes, encoded; the tokens of registries for their next page take some hundred
	maxLast      = 256  // bytes; a tag has up to 128, and what some registries give in its place is longer
	maxPageSize  = 9    // digits
)

// pageQuery is what upstream is asked of a request's query: all but ns. Paging is upstream's own, by parameters of its
// choice, which its links lead to; so they are passed on, as long as they are of a kind that a link might hold.
func pageQuery(r *http.Request) (url.Values, error) {
	invalid := func(format string, args ...any) (url.Values, error) {
		return nil, &apiError{status: http.StatusBadRequest, code: codeUnsupported, message: fmt.Sprintf(format, args...)}
	}
	query := r.URL.Query()
	query.Del("ns")
	for _, name := range []string{"n", "last"} {
		if query.Get(name) == "" {
			query.Del(name)
		}
	}
	for _, n := range query["n"] {
		if _, ok := parsePosition(n); !ok || len(n) > maxPageSize {
			return invalid("n=%.20q is no number of tags", n)
		}
	}
	for _, last := range query["last"] {
		if len(last) > maxLast || !utf8.ValidString(last) || strings.ContainsFunc(last, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return invalid("last=%.150q is nothing that a page could end with", last)
		}
	}
	if len(query.Encode()) > maxPageQuery {
		return invalid("the query is longer than %d bytes", maxPageQuery)
	}
	return query, nil
}

// list answers with a listing. The link to its next page leads back here, to the same path, with kept beside upstream's
// parameters.
func (p *Proxy) list(w http.ResponseWriter, r *http.Request, c *call, l *cache.Listing, mediaType string, body []byte, kept url.Values) error {
	c.answered(l.Verdict)
	h := w.Header()
	if next, ok := nextPage(l.Link); ok {
		for name, values := range kept {
			next[name] = values
		}
		if ns := namespace(r); ns != "" {
			next.Set("ns", ns)
		}
		path := url.URL{Path: r.URL.Path, RawQuery: next.Encode()}
		h.Set("Link", "<"+path.String()+`>; rel="next"`)
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, c.err = w.Write(body)
	return nil
}

// nextPage takes the query out of a Link header that leads to the next page (RFC 8288). Where the link leads to is not
// looked at: pages are asked for where the first one was.
func nextPage(link string) (url.Values, bool) {
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return nil, false
	}
	u, err := url.Parse(target)
	if err != nil || u.RawQuery == "" {
		return nil, false
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, false // with a part left out, it could lead to the first page again
	}
	query.Del("ns")
	return query, true
}

// filterReferrers keeps the descriptors of one artifact type, and everything else as it is.
func filterReferrers(body []byte, artifactType string) ([]byte, error) {
	var index map[string]json.RawMessage
	var manifests []json.RawMessage
	err := json.Unmarshal(body, &index)
	if err == nil {
		err = json.Unmarshal(index["manifests"], &manifests)
	}
	if err != nil {
		return nil, fmt.Errorf("upstream's referrers are no index: %w", err)
	}
	matching := []json.RawMessage{}
	for _, m := range manifests {
		var desc ocispec.Descriptor
		if json.Unmarshal(m, &desc) == nil && desc.ArtifactType == artifactType {
			matching = append(matching, m)
		}
	}
	if index["manifests"], err = json.Marshal(matching); err != nil {
		return nil, err
	}
	return json.Marshal(index)
}
