package bandwidth

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ample is a limit that nobody reaches here, in bytes a second: what is left is what taking costs.
const ample = 1 << 50

func BenchmarkTake(b *testing.B) {
	for name, line := range map[string]*Line{"unlimited": NewLine(0), "limited": NewLine(ample)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := line.Take(b.Context(), "a", 32<<10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRealTime tells by the clock how exact a saturated line is, and the processor time of all that take from it, as a
// share of one processor.
func BenchmarkRealTime(b *testing.B) {
	for _, rate := range []int64{64_000, 20_000_000, 125_000_000, 1_000_000_000} {
		for _, flows := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%dkBps/flows=%d", rate/1000, flows), func(b *testing.B) {
				line := NewLine(rate)
				line.Take(b.Context(), "first", int(line.bucket.room())) // the burst
				const seconds = 2
				for b.Loop() {
					shares := make([]int64, flows)
					cpu, start := processorTime(b), time.Now()
					var wg sync.WaitGroup
					for i := range flows {
						wg.Go(func() {
							for time.Since(start) < seconds*time.Second {
								n := line.Portion()
								if line.Take(b.Context(), Flow(fmt.Sprint(i)), n) == nil {
									shares[i] += int64(n)
								}
							}
						})
					}
					wg.Wait()
					took, sum, least, most := time.Since(start).Seconds(), int64(0), shares[0], shares[0]
					for _, n := range shares {
						sum, least, most = sum+n, min(least, n), max(most, n)
					}
					b.ReportMetric(100*float64(sum)/took/float64(rate), "%-of-rate")
					b.ReportMetric(100*(processorTime(b)-cpu).Seconds()/took, "%-of-a-processor")
					b.ReportMetric(float64(most)/float64(least), "most/least")
				}
			})
		}
	}
}

func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
