package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFile bounds the file. A table of a thousand registries is a tenth of it.
const maxFile = 1 << 20

// noAlias refuses aliases, which a configuration of this shape hardly needs, and with them their cycles and bombs.
const noAlias = "an alias stands here; allowed: the value itself (a text that begins with * goes in quotes)"

// readFile returns the root of the file's one document, nil if the file is empty.
func readFile(path string) (*yaml.Node, error) {
	data, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if i := bytes.IndexFunc(data, notText); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: a byte that is not text; allowed: UTF-8 without control characters", path, line)
	}
	documents, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var first, second yaml.Node
	switch err := documents.Load(&first); {
	case err == io.EOF:
		return nil, nil
	case err != nil:
		return nil, syntaxError(path, err)
	}
	switch err := documents.Load(&second); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: a second document begins; allowed: one document", path, second.Line)
	case err != io.EOF:
		return nil, syntaxError(path, err)
	}
	return first.Content[0], nil
}

// notText reports what the YAML reader would refuse without a line: bytes that are not UTF-8 and control characters.
func notText(r rune) bool {
	return r == utf8.RuneError || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
}

func syntaxError(path string, err error) error {
	load, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", path, err)
	case load.Stage == yaml.ComposerStage:
		// An alias without its anchor. The library repeats it, and it may be a password that lacks its quotes.
		return fmt.Errorf("%s:%d: %s", path, load.Mark.Line, noAlias)
	}
	return fmt.Errorf("%s:%d: not valid YAML: %s", path, load.Mark.Line, load.Message)
}

// decode lays a node over v. The line is that of its key, where there is one.
func (l *loader) decode(n *yaml.Node, v reflect.Value, key string, line int) {
	l.origins[key] = origin{source: l.file, line: line}
	null := n.ShortTag() == "!!null"
	switch {
	case n.Kind == yaml.AliasNode:
		l.fail(key, noAlias)
	case n.Style&yaml.TaggedStyle != 0:
		l.fail(key, "the value has a tag; allowed: values without tags")
	case isLeaf(v.Type()) && null:
		l.fail(key, `no value is given; allowed: a value ("" for an empty one), or to leave the key out`)
	case null:
		// A mapping or list all of whose lines are commented out.
	case isLeaf(v.Type()):
		if l.want(n, yaml.ScalarNode, key) {
			l.set(v, n.Value, key)
		}
	case v.Type() == reflect.TypeFor[Logins]():
		l.decodeLogins(n, v, key)
	case v.Kind() == reflect.Slice:
		if l.want(n, yaml.SequenceNode, key) {
			l.decodeList(n, v, key)
		}
	case v.Type() == reflect.TypeFor[Endpoint]() && n.Kind == yaml.ScalarNode:
		// It is not repeated: a URL may hold a password.
		l.fail(key, "a single value is given; allowed: {url: …}, such as {url: https://registry.example:5000/path}")
	case l.want(n, yaml.MappingNode, key):
		if v.Kind() == reflect.Map {
			l.decodeTable(n, v, key)
		} else {
			l.decodeStruct(n, v, key)
		}
	}
}

// want reports whether a node is of the kind that belongs at key.
func (l *loader) want(n *yaml.Node, kind yaml.Kind, key string) bool {
	names := map[yaml.Kind]string{
		yaml.ScalarNode: "a single value", yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping",
	}
	if n.Kind != kind {
		l.fail(key, "%s is given; allowed: %s", names[n.Kind], names[kind])
	}
	return n.Kind == kind
}

func (l *loader) decodeList(n *yaml.Node, v reflect.Value, key string) {
	l.hollow(key, len(n.Content))
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		l.decode(item, items.Index(i), fmt.Sprintf("%s[%d]", key, i), item.Line)
	}
	v.Set(items)
}

// decodeLogins takes credentials, which are a mapping, or a list of several. One alone has the key of the list.
func (l *loader) decodeLogins(n *yaml.Node, v reflect.Value, key string) {
	switch {
	case n.Kind == yaml.SequenceNode && len(n.Content) == 1:
		n = n.Content[0]
	case n.Kind == yaml.SequenceNode:
		l.decodeList(n, v, key)
		return
	case n.Kind == yaml.ScalarNode: // it is not repeated: it may be a password
		l.fail(key, "a single value is given; allowed: a mapping, or a list of mappings")
		return
	}
	var login Login
	if l.decode(n, reflect.ValueOf(&login).Elem(), key, n.Line); !login.isZero() {
		v.Set(reflect.ValueOf(Logins{login}))
	}
}

// decodeStruct lays a mapping over the fields that have its keys.
func (l *loader) decodeStruct(n *yaml.Node, v reflect.Value, key string) {
	var allowed []string
	for name := range fields(v) {
		allowed = append(allowed, name)
	}
	lines := map[string]int{}
	for name, value := range l.pairs(n) {
		i := slices.Index(allowed, name.Value)
		switch first := lines[name.Value]; {
		case i < 0 && v.Type() == reflect.TypeFor[Login]():
			// What is written here by mistake may be a secret.
			l.failAt(name.Line, key, "unknown key; %sallowed: %s", didYouMean(name.Value, allowed), list(allowed))
		case i < 0:
			l.failAt(name.Line, join(key, name.Value), "unknown key; %sallowed: %s",
				didYouMean(name.Value, allowed), list(allowed))
		case first > 0:
			l.failAt(name.Line, join(key, name.Value), "given before, on line %d; allowed: once", first)
		default:
			lines[name.Value] = name.Line
			l.decode(value, v.Field(i), join(key, name.Value), name.Line)
		}
	}
}

// decodeTable lays a mapping from names over those that are there.
func (l *loader) decodeTable(n *yaml.Node, v reflect.Value, key string) {
	type given struct {
		name string
		line int
	}
	before := map[string]given{}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for name, value := range l.pairs(n) {
		canonical := nameIn(v.Type(), name.Value)
		switch first, ok := before[canonical]; {
		case ok && first.name == name.Value:
			l.failAt(name.Line, join(key, name.Value), "given before, on line %d; allowed: once", first.line)
		case ok:
			l.failAt(name.Line, join(key, name.Value),
				"another name of %s, given on line %d; allowed: one of its names", quote(first.name), first.line)
		default:
			before[canonical] = given{name.Value, name.Line}
			entry := reflect.New(v.Type().Elem()).Elem()
			entry.Set(newEntry(v.Type()))
			if old := v.MapIndex(reflect.ValueOf(canonical)); old.IsValid() {
				entry.Set(old)
			}
			l.decode(value, entry, join(key, canonical), name.Line)
			v.SetMapIndex(reflect.ValueOf(canonical), entry)
		}
	}
}

// pairs yields the keys and values of a mapping, while there is room for their errors. A key that is a list, a mapping or
// an alias is yielded as the text "", which is no key.
func (l *loader) pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content) && len(l.errs) <= maxErrors; i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				key = &yaml.Node{Kind: yaml.ScalarNode, Line: key.Line}
			}
			if !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

// failAt is fail for a key that has no value.
func (l *loader) failAt(line int, key, format string, args ...any) {
	l.errs = append(l.errs, origin{source: l.file, line: line}.errorf(key, format, args...))
}

// didYouMean names the nearest of the names, if it is near enough to have been meant.
func didYouMean(name string, names []string) string {
	name = clip(name)
	best, distance := "", len(name)/2+1
	for _, candidate := range names {
		if d := editDistance(name, candidate); d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "? "
}

// editDistance counts the insertions, deletions and substitutions from a to b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// clip shortens what is foreign, so that an error stays readable.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return oneLine(s)
}

// oneLine replaces what would break a line or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// quote is clip in quotes.
func quote(s string) string { return `"` + clip(s) + `"` }

// list joins names for reading.
func list[T ~string](names []T) string {
	const most = 20
	var b strings.Builder
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(names)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(clip(string(name)))
	}
	return b.String()
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
