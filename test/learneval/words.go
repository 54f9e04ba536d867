// SPDX-License-Identifier: Apache-2.0

package learneval

import "strings"

// Words that people and programs name things with.
var (
	nouns = strings.Fields(`account acme admin alarm alpha analytics android api app apple archive asset atlas audit aurora backend backup
		badge bakery balance banner beacon berlin beta billing bird blog blue board book bot bridge bucket budget build cable cache
		campaign canvas car card cart catalog cedar chart chat checkout city client cloud cluster coffee comet compute config
		console contact content copper core crystal customer dashboard data delta demo deploy desert design desktop device
		diamond dispatch docs dragon eagle edge email engine event export falcon feature feed field finance fire forest forum
		frontend gallery garden gateway glacier gold green grid guest harbor harvest health helper home hotel image import
		index infra inventory invoice ios island job journal jupiter kafka kitchen lab lake landing legacy library light
		lion list loader local log london lunar mail main maple market marketing media member memory mercury meteor metrics
		migration mirror mobile model monitor moon mountain music network news node notes ocean office olive orange order
		orders paris partner payment people phoenix photo pilot pipeline planet platform player portal preview printer
		prod product profile project proxy public queue rabbit radar react recipe record redis release report reports
		research review river robot rocket router sales sample sandbox scheduler school search sensor server service
		session shadow shop silver site sky solar spark sprint staging star static storage store stream studio summer
		sunset support survey swift sync system table task team temp test theme tiger todo tokyo tracker training
		travel tulip ui user users vault vendor video vision wallet warehouse weather web widget winter wolf worker
		workspace yellow zebra zenith`)
	adjectives = strings.Fields(`active agile amber big blue bold brave bright calm clever cold cool crimson daily dark deep default
		east eager empty fast final first fresh full global golden gentle grand great happy hidden hot internal jolly
		last late little lost lucky main mighty misty modern my new nice noisy north old open our plain primary private
		proud public pure quick quiet rapid red rough royal secondary secret shared sharp shiny silent simple small smart
		soft south spare still sunny super tall test tiny top upper warm weekly west white wild young`)
	givenNames = strings.Fields(`alice amir ana andrew anna ben bob carla carlos chen daniel david diana elena emma eva fatima felix
		george grace hana henry ines ivan jack james jane jin john jose julia karim kate lars laura leo li lin lisa lucas
		maria mark marta mary max mei mia mike nadia nina noah olga oliver omar paul peter priya rachel raj rosa ryan sam sara
		sofia stefan susan tariq thomas tim tom victor wei yan yuki zoe`)
	familyNames = strings.Fields(`adams ahmed allen bauer becker bell brown chen clark cohen costa davis diaz evans fischer garcia gomez
		gonzalez green gupta hall hansen harris hill hoffmann huang ito jackson jansen johnson jones kaur khan kim king
		kumar larsen lee lewis li lopez martin meyer miller moore murphy nguyen novak olsen park patel perez petrov
		reyes rossi sato schmidt silva singh smith suzuki tanaka taylor thomas wagner walker wang weber white wilson wong
		wright yilmaz young zhang`)
	kinds = strings.Fields(`active all approved archived assigned audio basic billing blocked closed completed created credit csv custom
		daily debit default deleted disabled draft email enabled error event expired external failed file free group high
		html image inactive incoming internal invoice json large live low manual monthly new none open order outgoing
		paid pending person pdf premium private product public published ready rejected required running scheduled sent
		shared sms standard started stopped text update user video warning weekly xml`)
	locales    = strings.Fields(`en en-US en-GB de fr es it pt pt-BR nl sv da fi no pl cs ru uk tr ja ko zh zh-CN ar he hi th vi`)
	countries  = strings.Fields(`US GB DE FR ES IT NL SE DK FI NO PL CZ AT CH BE PT IE CA AU NZ JP KR CN IN BR MX AR CL ZA EG TR`)
	currencies = strings.Fields(`USD EUR GBP JPY CHF SEK NOK DKK PLN CZK CAD AUD NZD CNY INR BRL MXN ZAR TRY KRW`)
	tickers    = strings.Fields(`AAPL MSFT GOOG AMZN NVDA TSLA META IBM ORCL INTC AMD CSCO SAP ASML NFLX DIS NKE KO PEP MCD WMT V MA JPM BAC`)
	regions    = strings.Fields(`us-east-1 us-east-2 us-west-1 us-west-2 eu-west-1 eu-west-2 eu-central-1 eu-north-1 ap-south-1
		ap-northeast-1 ap-southeast-1 ap-southeast-2 sa-east-1 ca-central-1 westeurope northeurope eastus westus2 europe-west1
		us-central1 asia-east1`)
	suffixes = strings.Fields(`txt json pdf png jpg csv yaml md zip tar.gz html xml go py js`)
)
