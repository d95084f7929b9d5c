package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// extent is what a body holds of a blob.
type extent struct {
	size int64 // of the whole blob; -1: not stated
	skip int64 // bytes that come before the offset that was asked for
	left int64 // bytes that are to come, these included; -1: not stated
}

// extentOf reads an answer of status 200, which may ignore that an offset was asked for, or 206, which may not.
func extentOf(resp *http.Response, offset, length int64) (extent, error) {
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength < offset {
			return extent{}, fmt.Errorf("blob of %d bytes has none at %d", resp.ContentLength, offset)
		}
		return extent{size: resp.ContentLength, skip: offset, left: resp.ContentLength}, nil
	}
	header := resp.Header.Get("Content-Range")
	first, last, size, ok := parseContentRange(header)
	switch {
	case !ok:
		return extent{}, fmt.Errorf("part of a blob without a readable range: %q", printable(header, maxCode))
	case first != offset:
		return extent{}, fmt.Errorf("part of a blob from %d on, not from %d", first, offset)
	case resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
		return extent{}, fmt.Errorf("part of a blob with %d bytes for the range %q", resp.ContentLength, header)
	}
	// As much as was asked for, though the part may be shorter: then it ends early, and the caller asks for what is missing.
	left := size - first
	if size < 0 {
		left = last - first + 1
	}
	if length > 0 {
		left = min(left, length)
	}
	return extent{size: size, left: left}, nil
}

// parseContentRange reads "bytes first-last/size". Size is -1 where the header says that it is not known.
func parseContentRange(header string) (first, last, size int64, ok bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	span, total, _ := strings.Cut(rest, "/")
	from, to, _ := strings.Cut(span, "-")
	first, errFirst := parseSize(from)
	last, errLast := parseSize(to)
	size, errSize := int64(-1), error(nil)
	if total != "*" {
		size, errSize = parseSize(total)
	}
	ok = strings.EqualFold(unit, "bytes") && errors.Join(errFirst, errLast, errSize) == nil &&
		first <= last && (size < 0 || last < size)
	return first, last, size, ok
}

// parseSize reads digits and nothing but digits.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}
