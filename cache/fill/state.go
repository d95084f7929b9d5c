package fill

import (
	"encoding"
	"encoding/json"
	"errors"
	"hash"

	"github.com/opencontainers/go-digest"
)

// state is what is kept of an unfinished fill beside its file.
type state struct {
	Size      int64      `json:"size"`
	Spans     [][2]int64 `json:"spans"`
	Hashed    int64      `json:"hashed"` // how much of the prefix is in Hash
	Hash      []byte     `json:"hash"`   // the hasher, as it marshals itself
	Validator string     `json:"validator,omitempty"`
}

// saveEvery is how much may land before the state is written again, as a part of the content: a program that is killed
// fetches at most that much twice.
const saveEvery = 1.0 / 64

// save writes the state if enough has landed since it was last written. That it can't be written costs a transfer later.
func (f *flight) save() {
	if !f.saving.TryLock() {
		return
	}
	defer f.saving.Unlock()
	f.mu.Lock()
	due := f.have.total()-f.saved >= max(1<<20, int64(float64(f.size)*saveEvery))
	f.mu.Unlock()
	if due {
		_ = f.file.Save(f.snapshot())
	}
}

// snapshot is the state of this moment. It is called with saving held. The hasher comes first, so that all that it has
// hashed is in the spans.
func (f *flight) snapshot() []byte {
	f.hashing.Lock()
	s := state{Hashed: f.hashed}
	s.Hash, _ = f.hasher.(encoding.BinaryMarshaler).MarshalBinary() // without it all is hashed again
	f.hashing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Size, f.saved = f.size, f.have.total()
	s.Validator = f.validator
	for _, have := range f.have {
		s.Spans = append(s.Spans, [2]int64{have.from, have.to})
	}
	return s.marshal()
}

func (s state) marshal() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers, strings and bytes always marshal
	}
	return b
}

// park ends the writing of a fill that ended with cause: what has landed is kept, unless it is the file that is at fault.
func (f *flight) park(cause error) {
	f.saving.Lock()
	defer f.saving.Unlock()
	b := f.snapshot()
	if errors.Is(cause, ErrStorage) || f.saved == 0 {
		f.file.Discard()
		return
	}
	_ = f.file.Park(b) // if that fails it is discarded, and fetched again
}

// takeUp opens what was parked of the content; file is nil and size -1 if there is nothing, or nothing of use.
func (f *flight) takeUp() (file File, b []byte, have spans, size int64) {
	file, b, intact, ok := f.opts.Parked(f.digest)
	if !ok {
		return nil, nil, nil, -1
	}
	s, have, hasher, err := parseState(b, f.digest.Algorithm())
	if err != nil {
		file.Discard()
		file.Close()
		return nil, nil, nil, -1
	}
	if !holds(file, have) {
		file.Discard()
		file.Close()
		return nil, nil, nil, -1
	}
	f.saved, f.validator, f.resumed = have.total(), s.Validator, true
	if intact {
		f.hasher, f.hashed = hasher, s.Hashed
		return file, b, have, s.Size
	}
	s.Hashed, s.Hash = 0, nil // what lies there is hashed anew, for what it is; also if it is parked again first
	return file, s.marshal(), have, s.Size
}

// holds reports whether a file is as long as it takes to hold what is said to be in it.
func holds(file File, have spans) bool {
	if len(have) == 0 {
		return true
	}
	_, err := file.ReadAt(make([]byte, 1), have[len(have)-1].to-1)
	return err == nil
}

var errState = errors.New("fill: ill-formed state")

// parseState takes a state apart: foreign bytes, for all that is known of the disk.
func parseState(b []byte, algorithm digest.Algorithm) (s state, have spans, hasher hash.Hash, err error) {
	if err := json.Unmarshal(b, &s); err != nil {
		return s, nil, nil, errState
	}
	for _, p := range s.Spans {
		if p[0] < 0 || p[1] <= p[0] || p[1] > s.Size {
			return s, nil, nil, errState
		}
		have.add(p[0], p[1])
	}
	hasher = algorithm.Hash()
	if s.Size < 0 || s.Hashed < 0 || s.Hashed > have.end(0) {
		return s, nil, nil, errState
	}
	if hasher.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.Hash) != nil {
		hasher, s.Hashed = algorithm.Hash(), 0
	}
	return s, have, hasher, nil
}
