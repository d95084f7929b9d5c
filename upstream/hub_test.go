package upstream_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hub is a registry with the limits of Docker Hub: GETs of manifests are counted over a window for each user, HEADs and blobs are
// not; and who asks too much in a second, whatever it is, gets 429 for a while, whoever it is.
type hub struct {
	t *testing.T

	limit  int64
	window time.Duration // from the first GET that is counted in it
	burst  int           // requests in a second that are too many
	ban    time.Duration
	silent bool // 429s do not say when to come back

	mu sync.Mutex
	// guards following
	content map[string]content // by "name:tag", "name@digest"
	windows map[string]*window // by user
	refused int                // 429s because of the window
	banned  int                // 429s because of the burst
	second  time.Time
	count   int
	until   time.Time
}

type content struct{ mediaType, body string }

type window struct {
	ends time.Time
	used int64
}

// counted is how many GETs of manifests the hub has counted in the present windows.
func (h *hub) counted() (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.windows {
		n += w.used
	}
	return n
}

// tooMany reports whether a request is refused, whatever it is.
func (h *hub) tooMany(rw http.ResponseWriter) bool {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if second := now.Truncate(time.Second); second != h.second {
		h.second, h.count = second, 0
	}
	if h.count++; h.count > h.burst && now.After(h.until) {
		h.until = now.Add(h.ban)
	}
	if h.burst == 0 || !now.Before(h.until) {
		return false
	}
	h.banned++
	if !h.silent {
		rw.Header().Set("Retry-After", fmt.Sprint(int(h.until.Sub(now).Seconds())+1))
	}
	http.Error(rw, "Too Many Requests (HAP429).", http.StatusTooManyRequests)
	return true
}

// tokens are good for ten minutes, and say who bears them.
func (h *hub) tokens(rw http.ResponseWriter, req *http.Request) {
	if h.tooMany(rw) {
		return
	}
	user, _, ok := req.BasicAuth()
	if !ok {
		user = "nobody"
	}
	fmt.Fprintf(rw, `{"token":"%s/%d","expires_in":600}`, user, time.Now().Add(10*time.Minute).Unix())
}

func (h *hub) registry(rw http.ResponseWriter, req *http.Request) {
	if h.tooMany(rw) {
		return
	}
	bearer, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	user, end, ok := strings.Cut(bearer, "/")
	var until int64
	fmt.Sscan(end, &until)
	if !ok || time.Now().Unix() > until {
		rw.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.test/token",service="hub"`)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	name, reference, isManifest := strings.Cut(path, "/manifests/")
	if !isManifest {
		name, reference, _ = strings.Cut(path, "/blobs/")
	}
	if isManifest && !h.spend(rw, user, req.Method == http.MethodGet) {
		return
	}
	mark := ":"
	if strings.Contains(reference, ":") {
		mark = "@"
	}
	h.mu.Lock()
	c, ok := h.content[name+mark+reference]
	h.mu.Unlock()
	if !ok {
		http.NotFound(rw, req)
		return
	}
	rw.Header().Set("Content-Type", c.mediaType)
	rw.Header().Set("Docker-Content-Digest", digest.FromString(c.body).String())
	rw.Header().Set("Content-Length", fmt.Sprint(len(c.body)))
	fmt.Fprint(rw, c.body)
}

// spend states the budget of a user, and takes one off it if the request is counted.
func (h *hub) spend(rw http.ResponseWriter, user string, counted bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, now := h.windows[user], time.Now()
	if w == nil || !now.Before(w.ends) {
		w = &window{ends: now.Add(h.window)}
		h.windows[user] = w
	}
	spent := counted && w.used == h.limit
	if spent {
		h.refused++
	} else if counted {
		w.used++
	}
	rw.Header().Set("RateLimit-Limit", fmt.Sprintf("%d;w=%d", h.limit, int(h.window.Seconds())))
	rw.Header().Set("RateLimit-Remaining", fmt.Sprintf("%d;w=%d", h.limit-w.used, int(h.window.Seconds())))
	if spent {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(rw, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`)
	}
	return !spent
}

// push puts an image under a tag, of a version: an index of two platforms, or an image alone. It returns how many manifests it has.
func (h *hub) push(name, tag string, version int, indexed bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	put := func(mediaType, body string) string {
		d := digest.FromString(body)
		h.content[name+"@"+d.String()] = content{mediaType, body}
		return fmt.Sprintf(`"mediaType":%q,"digest":%q,"size":%d`, mediaType, d, len(body))
	}
	image := func(platform string) (body string) {
		id := fmt.Sprintf("%s:%s %d %s", name, tag, version, platform)
		return fmt.Sprintf(`{"schemaVersion":2,"config":{%s},"layers":[{%s}]}`,
			put(ocispec.MediaTypeImageConfig, fmt.Sprintf(`{"id":%q}`, id)), put(ocispec.MediaTypeImageLayerGzip, "layer of "+id))
	}
	mediaType, body, manifests := ocispec.MediaTypeImageManifest, image(runtime.GOARCH), 1
	if indexed {
		body = fmt.Sprintf(`{"schemaVersion":2,"manifests":[{%s,"platform":{"os":"linux","architecture":%q}},{%s,"platform":{"os":"windows","architecture":"mips"}}]}`,
			put(mediaType, body), runtime.GOARCH, put(mediaType, image("windows")))
		mediaType, manifests = ocispec.MediaTypeImageIndex, 2 // the other platform's is never pulled
	}
	put(mediaType, body)
	h.content[name+":"+tag] = content{mediaType, body}
	return manifests
}
