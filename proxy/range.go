package proxy

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/entrepot/entrepot/cache"
)

// byteRange is one range of a Range header (RFC 9110, 14.1.2): from first to last, both included, or the last suffix bytes.
type byteRange struct {
	first, last int64 // last is math.MaxInt64 when it was left open
	suffix      int64 // -1 when this is no suffix
}

// maxRanges is how many ranges are answered in one answer. zstd:chunked clients ask for up to 1024 chunks at once; each part
// costs the client fewer bytes to ask for than it costs to answer.
const maxRanges = 1024

// parseRange takes a Range header apart. ok is false when there is none, or one that is to be ignored: ill-formed, in
// another unit, or of too many ranges.
func parseRange(header string) (ranges []byteRange, ok bool) {
	unit, set, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return nil, false
	}
	for spec := range strings.SplitSeq(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // RFC 9110, 5.6.1.2: empty list elements are skipped
		}
		r, ok := parseSpec(spec)
		if !ok || len(ranges) == maxRanges {
			return nil, false
		}
		ranges = append(ranges, r)
	}
	return ranges, len(ranges) > 0
}

func parseSpec(spec string) (r byteRange, ok bool) {
	from, to, found := strings.Cut(spec, "-")
	if !found {
		return r, false
	}
	if from == "" {
		r.suffix, ok = parsePosition(to)
		return r, ok
	}
	r = byteRange{last: math.MaxInt64, suffix: -1}
	if r.first, ok = parsePosition(from); !ok {
		return r, false
	}
	if to != "" {
		if r.last, ok = parsePosition(to); !ok || r.last < r.first {
			return r, false
		}
	}
	return r, true
}

// parsePosition takes digits only. A position beyond what fits is as good as the largest that does.
func parsePosition(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		n = math.MaxInt64
	}
	return n, true
}

// satisfiable reports whether the range has a byte of content of that size.
func (r byteRange) satisfiable(size int64) bool {
	if r.suffix >= 0 {
		return r.suffix > 0 && size > 0
	}
	return r.first < size
}

func (r byteRange) String() string {
	switch {
	case r.suffix >= 0:
		return "-" + strconv.FormatInt(r.suffix, 10)
	case r.last == math.MaxInt64:
		return strconv.FormatInt(r.first, 10) + "-"
	}
	return strconv.FormatInt(r.first, 10) + "-" + strconv.FormatInt(r.last, 10)
}

// partOf is what a request is going to read of a blob whose size need not be known yet: the first range, if there are
// several. If-Range may make it the whole: such a request is rare, and then fetches on as it reads.
func partOf(r *http.Request) cache.Part {
	ranges, ok := parseRange(r.Header.Get("Range"))
	switch {
	case !ok:
		return cache.Whole
	case ranges[0].suffix > 0:
		return cache.Part{From: -ranges[0].suffix, To: math.MaxInt64, Ranged: true}
	case ranges[0].suffix == 0:
		return cache.Part{}
	case ranges[0].last == math.MaxInt64:
		return cache.Part{From: ranges[0].first, To: math.MaxInt64, Ranged: true}
	}
	return cache.Part{From: ranges[0].first, To: ranges[0].last + 1, Ranged: true}
}

// normalizeConditions rewrites a request's If-Match and If-None-Match to what http.ServeContent answers in the order of RFC
// 9110, 13.2.2, where a range comes last, or drops them. The error is a 412.
func normalizeConditions(r *http.Request, etag string) error {
	h := r.Header
	if h["If-Match"] == nil && h["If-None-Match"] == nil { // nearly always
		return nil
	}
	if wanted := strings.Join(h.Values("If-Match"), ","); wanted != "" && !listed(wanted, etag) {
		return &apiError{status: http.StatusPreconditionFailed, code: codeUnsupported,
			message: "If-Match names none of this content, whose ETag is " + etag}
	}
	h.Del("If-Match")
	if listed(strings.Join(h.Values("If-None-Match"), ","), etag, "W/"+etag) {
		h.Set("If-None-Match", etag)
		h.Del("Range")
	} else {
		h.Del("If-None-Match")
	}
	return nil
}

// listed reports whether a list of entity tags holds one of etags, or is "*". A comma may stand within a tag too; but not
// within ours, nor may a quotation mark stand within any.
func listed(list string, etags ...string) bool {
	for tag := range strings.SplitSeq(list, ",") {
		tag = strings.Trim(tag, " \t")
		if tag == "*" || slices.Contains(etags, tag) {
			return true
		}
	}
	return false
}

// normalizeRange rewrites a request's Range header to what http.ServeContent answers rightly (it takes "-0" for a range
// and ill-formed ones for unsatisfiable), or drops it. The error is a 416: no range has a byte of the content.
func normalizeRange(r *http.Request, etag string, size int64) error {
	header := r.Header.Get("Range")
	if header == "" {
		return nil
	}
	ranges, ok := parseRange(header)
	if cond := r.Header.Get("If-Range"); cond != "" && cond != etag {
		ok = false // RFC 9110, 13.1.5; a date never matches, for there are none
	}
	if !ok || r.Method != http.MethodGet || size == 0 { // of nothing, everybody gets all
		r.Header.Del("Range")
		return nil
	}
	var specs []string
	for _, br := range ranges {
		if br.satisfiable(size) {
			specs = append(specs, br.String())
		}
	}
	if len(specs) == 0 {
		return &apiError{status: http.StatusRequestedRangeNotSatisfiable, code: codeSizeInvalid,
			message: "no requested range lies within the content of " + strconv.FormatInt(size, 10) + " bytes"}
	}
	r.Header.Set("Range", "bytes="+strings.Join(specs, ","))
	return nil
}
