// `cron`: which instants Kubernetes' own library takes for schedules, for tests that compare. The
// library may search without an end, so its search is watched from beside.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/kubernetes/pkg/util/parsers"
)

// cronLimit is processor time, so that a busy machine changes no answer. A search that ends takes
// milliseconds.
const cronLimit = time.Second

// cronAnswers answers each line `SCHEDULE|ZONE|AFTER` of stdin with a line: the next `args[0]`
// instants, separated by blanks; `none` where there are no more, `endless` where a search does not
// end, and `error` alone for what is refused. A schedule may hold `|`; zones and times do not.
func cronAnswers(_ layout, args []string) error {
	if len(args) != 1 {
		return errors.New("give the number of instants wanted for each line: cron N")
	}
	count, err := strconv.Atoi(args[0])
	if err != nil || count < 0 {
		return fmt.Errorf("%q is not a number of instants", args[0])
	}
	lines, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	questions, answers := make(chan string), make(chan string)
	go answerCron(count, questions, answers)
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\n"))
		lines = rest
		questions <- string(line)
		ended := writeCronAnswer(out, answers)
		if _, err := out.WriteString("\n"); err != nil {
			return err
		}
		if !ended {
			return afresh(out, lines)
		}
	}
	return out.Flush()
}

// writeCronAnswer copies one line's answer, and tells whether it came to its end.
func writeCronAnswer(out io.StringWriter, answers <-chan string) bool {
	begin := processorTime()
	ticker := time.NewTicker(cronLimit / 10)
	defer ticker.Stop()
	separator := ""
	for {
		select {
		case answer := <-answers:
			if answer == "" {
				return true
			}
			_, _ = out.WriteString(separator + answer)
			separator = " "
			begin = processorTime()
		case <-ticker.C:
			if processorTime()-begin > cronLimit {
				_, _ = out.WriteString(separator + "endless")
				return false
			}
		}
	}
}

// answerCron answers question by question; an empty answer ends each.
func answerCron(count int, questions <-chan string, answers chan<- string) {
	zones := map[string]*time.Location{}
	for question := range questions {
		if err := answerCronLine(count, question, zones, answers); err != nil {
			answers <- "error"
		}
		answers <- ""
	}
}

func answerCronLine(count int, line string, zones map[string]*time.Location, answers chan<- string) error {
	line, after, _ := cutLast(line, "|")
	text, zone, _ := cutLast(line, "|")
	// The function by which Kubernetes checks a schedule, and reads it when it runs.
	schedule, err := parsers.ParseCronScheduleWithPanicRecovery(text)
	if err != nil {
		return err
	}
	if zones[zone] == nil {
		location, err := time.LoadLocation(zone)
		if err != nil {
			giveUp(line, err)
		}
		zones[zone] = location
	}
	at, err := time.Parse(time.RFC3339, after)
	if err != nil {
		giveUp(line, err)
	}
	// A schedule without a zone of its own takes that of the time, as with Kubernetes' prefix `TZ=`.
	at = at.In(zones[zone])
	for range count {
		if at = schedule.Next(at); at.IsZero() {
			answers <- "none"
			return nil
		}
		answers <- at.UTC().Format(time.RFC3339)
	}
	return nil
}

// giveUp ends the program: a mistake of whoever asks must not look like an answer.
func giveUp(line string, err error) {
	fmt.Fprintf(os.Stderr, "stoker-cluster cron: %q: %v\n", line, err)
	os.Exit(1)
}

func cutLast(text, separator string) (string, string, bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}

// afresh goes on with the lines that are left in this process's place: nothing else ends a search
// that does not end by itself.
func afresh(out *bufio.Writer, lines []byte) error {
	if err := out.Flush(); err != nil || len(lines) == 0 {
		return err
	}
	fd, err := unix.MemfdCreate("lines", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "lines")
	if _, err := file.Write(lines); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := unix.Dup3(fd, 0, 0); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

func processorTime() time.Duration {
	var used unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used); err != nil {
		panic(err) // Linux has this clock.
	}
	return time.Duration(used.Nano())
}
