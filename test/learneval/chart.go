// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"fmt"
	"strings"
)

// Point is one learner's figures for a chart.
type Point struct {
	Label string
	Score Score
}

// Curve is points that belong together; those of a Line are joined.
type Curve struct {
	Name   string
	Colour string
	Line   bool
	Points []Point
}

// Extent of a chart, in pixels, and of its x axis.
const (
	width, height                    = 760, 470
	left, right, top, bottom         = 70, 20, 40, 60
	maxOver                          = 0.55
	minCoverage                      = 0.2
	aimedCoverage, aimedOver float64 = 0.90, 0.05
)

// Chart draws over-permission against coverage as an SVG.
func Chart(title string, curves []Curve) string {
	x := func(over float64) float64 { return left + min(over, maxOver)/maxOver*(width-left-right) }
	y := func(coverage float64) float64 {
		return height - bottom - (max(coverage, minCoverage)-minCoverage)/(1-minCoverage)*(height-top-bottom)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="22" font-size="15">%s</text>`+"\n", width, height, left, title)
	fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#e8f4e8"/>`+"\n", x(0), y(1), x(aimedOver)-x(0), y(aimedCoverage)-y(1))
	for tick := 0.0; tick <= maxOver+1e-9; tick += 0.05 {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle">%.2f</text>`+"\n",
			x(tick), x(tick), y(minCoverage), y(1), x(tick), height-bottom+18, tick)
	}
	for tick := minCoverage; tick <= 1+1e-9; tick += 0.1 {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#eee"/><text x="%d" y="%.1f" text-anchor="end">%.1f</text>`+"\n",
			x(0), x(maxOver), y(tick), y(tick), left-8, y(tick)+4, tick)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">over-permission: requests of unseen operations that are allowed</text>`+"\n", (left+width-right)/2, height-18)
	fmt.Fprintf(&b, `<text transform="translate(20 %d) rotate(-90)" text-anchor="middle">coverage: fresh requests of seen operations that are allowed</text>`+"\n", (height-bottom+top)/2)
	for i, c := range curves {
		var line []string
		for _, p := range c.Points {
			px, py := x(p.Score.Over), y(p.Score.Coverage)
			line = append(line, fmt.Sprintf("%.1f,%.1f", px, py))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", px, py, c.Colour)
			if p.Label != "" {
				fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" font-size="10" fill="#444">%s</text>`+"\n", px+6, py+12, p.Label)
			}
		}
		if c.Line {
			fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(line, " "), c.Colour)
		}
		ly := height - bottom - 14 - 18*(len(curves)-1-i)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", width-260, ly-9, c.Colour, width-244, ly, c.Name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
