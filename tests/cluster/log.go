// The supervisor's own log lines, and the last lines of a part's.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// logf writes to standard error, which is logs/supervisor.log in the daemon.
func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// lastLines returns the end of a log, indented; it never fails, for it only explains a failure.
func lastLines(file string, count int) string {
	const enough = 32 << 10
	f, err := os.Open(file)
	if err != nil {
		return "    (" + err.Error() + ")"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > enough {
		_, _ = f.Seek(-enough, 2)
	}
	var buffer bytes.Buffer
	_, _ = buffer.ReadFrom(f)
	lines := strings.Split(strings.TrimRight(buffer.String(), "\n"), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return "    " + strings.Join(lines, "\n    ")
}
