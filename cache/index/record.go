package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Keys are a letter for the kind and then parts separated by NUL, which occurs in none of them.
func key(kind string, parts ...string) []byte {
	b := []byte(kind)
	for _, p := range parts {
		b = append(b, 0)
		b = append(b, p...)
	}
	return b
}

// splitKey takes a key apart.
func splitKey(key []byte) (kind string, parts []string) {
	kind, rest, ok := strings.Cut(string(key), "\x00")
	if ok {
		parts = strings.Split(rest, "\x00")
	}
	return kind, parts
}

// cutKey takes the first part off what follows the kind.
func cutKey(rest []byte) (part string, after []byte, ok bool) {
	first, after, ok := bytes.Cut(rest, []byte{0})
	return string(first), after, ok
}

// The kinds of records.
const (
	tagKind     = "t"
	memberKind  = "m"
	shownKind   = "s"
	listingKind = "l"
	listedKind  = "k" // content that is kept
	publicKind  = "p" // what upstream shows to everybody
	trustKind   = "e" // registries that were ever asked with more than nobody has
	sweptKind   = "v" // the highest version when Sweep began last, and the time
)

func tagKey(r Repository, tag string) []byte { return key(tagKind, r.Registry, r.Name, tag) }
func memberKey(r Repository, d digest.Digest) []byte {
	return key(memberKind, r.Registry, r.Name, d.String())
}
func shownKey(registry string, d digest.Digest) []byte { return key(shownKind, registry, d.String()) }
func listingKey(r Repository, resource string) []byte {
	return key(listingKind, r.Registry, r.Name, resource)
}

func publicKey(r Repository, what string) []byte { return key(publicKind, r.Registry, r.Name, what) }

func trustKey(registry string) []byte { return key(trustKind, registry) }

// The keys of a kind begin with its prefix.
var (
	tagPrefix     = key(tagKind, "")
	memberPrefix  = key(memberKind, "")
	shownPrefix   = key(shownKind, "")
	listingPrefix = key(listingKind, "")
	listedPrefix  = key(listedKind, "")
	publicPrefix  = key(publicKind, "")
	sweptKey      = key(sweptKind)
)

// version begins each value: a record of another version is one that isn't there.
const version = 1

func (t Tag) encode() []byte {
	b := appendString([]byte{version}, t.Manifest.MediaType)
	b = appendString(b, string(t.Manifest.Digest))
	b = binary.AppendVarint(b, t.Manifest.Size)
	b = appendTime(b, t.Checked)
	return appendTime(b, t.Changed)
}

func (t *Tag) decode(b []byte) error {
	d := decoder{rest: b}
	d.version()
	t.Manifest.MediaType = d.string()
	t.Manifest.Digest = digest.Digest(d.string())
	t.Manifest.Size = d.int()
	t.Checked = d.time()
	t.Changed = d.time()
	return errors.Join(d.done(), t.Manifest.Digest.Validate())
}

func (m Member) encode() []byte {
	b := appendString([]byte{version}, m.MediaType)
	b = binary.AppendVarint(b, m.Size)
	if m.Confirmed {
		return append(b, 1)
	}
	return append(b, 0)
}

func (m *Member) decode(b []byte) error {
	d := decoder{rest: b}
	d.version()
	m.MediaType = d.string()
	m.Size = d.int()
	m.Confirmed = d.byte() == 1
	return d.done()
}

func (l Listing) encode() []byte {
	b := appendString([]byte{version}, l.ContentType)
	b = appendString(b, l.Link)
	b = appendTime(b, l.Checked)
	return append(b, l.Body...)
}

func (l *Listing) decode(b []byte) error {
	d := decoder{rest: b}
	d.version()
	l.ContentType = d.string()
	l.Link = d.string()
	l.Checked = d.time()
	l.Body = append([]byte(nil), d.rest...)
	d.rest = nil
	return d.done()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, t.UnixNano()) }

var errRecord = errors.New("index: ill-formed record")

// decoder takes a record apart. After the first failure it yields zero values; done tells.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) fail() { d.failed, d.rest = true, nil }

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) version() {
	if d.byte() != version {
		d.fail()
	}
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) string() string {
	size, n := binary.Uvarint(d.rest)
	if n <= 0 || size > uint64(len(d.rest)-n) {
		d.fail()
		return ""
	}
	s := string(d.rest[n : n+int(size)])
	d.rest = d.rest[n+int(size):]
	return s
}

func (d *decoder) time() time.Time { return time.Unix(0, d.int()) }

func (d *decoder) done() error {
	if d.failed || len(d.rest) > 0 {
		return errRecord
	}
	return nil
}
