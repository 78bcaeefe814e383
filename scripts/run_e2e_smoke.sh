#!/usr/bin/env bash
# From a tokenizer to the report, all of it at a tiny size: does it work together? Under 3 minutes on 2 cores.
#
#     scripts/run_e2e_smoke.sh [folder]        the folder, by default runs/e2e_smoke, is created again
#
# The text is the package's own source; files that packs need are written here. Metrics mean nothing at this size.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${1:-runs/e2e_smoke}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1 PYTHONPATH=${PYTHONPATH:-.}
rm -rf "$OUT"
mkdir -p "$OUT"/{logs,data}

# say NAME: run the command after it, its output in logs/NAME.log
say() {
  local name=$1 started=$SECONDS
  shift
  if ! "$@" >"$OUT/logs/$name.log" 2>&1; then
    printf 'FAILED  %s: %s\n' "$name" "$*" >&2
    tail -n 5 "$OUT/logs/$name.log" >&2
    exit 1
  fi
  printf '%4d s  %s\n' $((SECONDS - started)) "$name"
}

TINY="out=$OUT device=cpu model.dim=16 model.num_layers=1 model.num_heads=2 steps=4 val_every=4 save_every=4 log_every=1
  sampling.num_tokens=2"
HOPE="model=hope model.memory.chunk=16 model.generating_chunk=16"
ROWS="data.batch_size=4 data.val_rows=4"
MEMORIZE="memory=memorize memory.lr=0.1 memory.chunk=32"

train() { say "train_$1" "$PYTHON" train.py $TINY name="$1" "${@:2}"; }
evaluate() { say "eval_$1_$2" "$PYTHON" train.py phase=eval device=cpu checkpoint="$OUT/$1" "evals=[$2]" "${@:3}"; }

write_files() {
  local data=$OUT/data row
  for row in $(seq 1 12); do
    echo '{"query": "The tap was turned on, therefore", "choices": ["water flowed.", "it rained stones."], "gold": 0}'
  done | tee "$data/copa.jsonl" >"$data/piqa.jsonl"
  for row in 1 2 3; do
    echo '{"context": "ADNA: Ngoru ndengi.\nENGLISH TRANSLATION: The child drinks.\n\nADNA: Ngoru ndengi.\nENGLISH TRANSLATION:", "continuation": "The child drinks."}'
  done >"$data/conlang.jsonl"
  for row in $(seq 1 20); do
    printf '1 Mary moved to the bathroom.\n2 John went to the hallway.\n3 Where is Mary?\tbathroom\t1\n'
  done >"$data/qa1_single-supporting-fact_train.txt"
  for row in $(seq 1 12); do
    echo "{\"text\": \"pay bill $row now\", \"label\": \"pay\", \"domain\": \"bank\"}"
    echo "{\"text\": \"lost card $row again\", \"label\": \"card\", \"domain\": \"bank\"}"
    echo "{\"text\": \"book flight $row please\", \"label\": \"flight\", \"domain\": \"travel\"}"
    echo "{\"text\": \"find hotel $row near\", \"label\": \"hotel\", \"domain\": \"travel\"}"
  done >"$data/classes.jsonl"
}

# a tokenizer is trained, text becomes shards; a training run is killed and resumes; packs of text
text() {
  say shards "$PYTHON" scripts/prepare_data.py "$OUT/shards" nested_learning/evals nested_learning/report \
    --tokenizer bpe --vocab-size 384 --val-fraction 0.3
  local run="$OUT/text" words="$TINY $HOPE name=text data=tokens data.path=$OUT/shards data.seq_len=64 $ROWS"
  words="${words/steps=4/steps=40} val_every=40 save_every=2"
  words="${words/ val_every=4 save_every=4/}"
  "$PYTHON" train.py $words >"$OUT/logs/killed.log" 2>&1 &
  local victim=$!
  until [ -e "$run/checkpoints/latest" ]; do
    kill -0 $victim 2>/dev/null || { echo "FAILED  the training to be killed ended" >&2; tail -n 5 "$OUT/logs/killed.log" >&2; exit 1; }
    sleep 0.2
  done
  kill -9 $victim
  wait $victim 2>/dev/null || true
  say train_text_goes_on "$PYTHON" train.py $words
  grep -q '"step": 40' "$run/summary.json"
  local haystacks="evals.niah.lengths=[384] evals.niah.depths=[0,100] evals.niah.num_examples=1 evals.niah.num_generated=48
    evals.passkey.lengths=[192,256] evals.passkey.depths=[0,100] evals.passkey.num_examples=1"
  evaluate text memory,perplexity evals.memory.num_rows=2 evals.perplexity.num_texts=2 evals.perplexity.length_factor=2
  evaluate text validation,perplexity,niah,passkey,babilong $MEMORIZE $haystacks evals.perplexity.num_texts=2 \
    evals.perplexity.length_factor=2 evals.babilong.path="$OUT/data" "evals.babilong.tasks=[qa1]" \
    "evals.babilong.lengths=[0,256]" evals.babilong.num_examples=1 evals.babilong.held_out=1.0
  if "$PYTHON" -c "import lm_eval, sacrebleu" 2>/dev/null; then
    evaluate text zeroshot,core,translation $MEMORIZE evals.zeroshot.path="$OUT/data" evals.zeroshot.limit=2 \
      evals.core.path="$OUT/data" evals.core.limit=2 evals.translation.path="$OUT/data/conlang.jsonl" \
      evals.translation.limit=2 evals.translation.num_tokens=8
  else
    echo "        left out: zeroshot, core, translation; pip install -e '.[eval]'"
    touch "$OUT/logs/left_out"
  fi
}

# models of tasks, each with the pack of harder versions of its task
tasks() {
  train recall data=recall $HOPE $ROWS data.gap=8
  evaluate recall recall $MEMORIZE "evals.recall.gaps=[8,16]" evals.recall.num_rows=4
  train formal data=formal model=lstm $ROWS data.max_length=12
  evaluate formal formal evals.formal.num_rows=8
  train mad data=mad model=deltanet $ROWS data.length=16
  evaluate mad mad evals.mad.num_rows=8
  train needle data=facts model=titans_lmm model.memory.chunk=16 $ROWS
  evaluate needle needle $MEMORIZE evals.needle.num_examples=8
  train sequence data=sequence $HOPE $ROWS data.seq_len=64 data.steps_each=2 keep_every=2 \
    "data.sources={code:{name:text,path:nested_learning},pages:{name:text,path:docs}}"
  evaluate sequence continual,continual_memory evals.continual.num_rows=2 evals.continual_memory.num_streams=2 \
    evals.continual_memory.num_rows=1 evals.continual_memory.val_rows=2
  train classes data=classes $HOPE data.batch_size=4 data.path="$OUT/data/classes.jsonl" data.val_per_label=2 \
    data.steps_each=2 keep_every=2 data.text_len=48
  say eval_classes "$PYTHON" scripts/eval/class_incremental.py --checkpoint "$OUT/classes" --device cpu
}

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
started=$SECONDS
write_files
text &
texts=$!
tasks &
others=$!
# whichever fails ends the script, and with it the other
wait $texts
wait $others
say report "$PYTHON" -m nested_learning.report "$OUT" --page "$OUT/report.md"
say page "$PYTHON" -m nested_learning.report "$OUT/text"

# every pack was evaluated
for file in configs/evals/*.yaml; do
  pack=$(basename "$file" .yaml)
  case $pack in zeroshot | core | translation) [ -e "$OUT/logs/left_out" ] && continue ;; esac
  grep -q "^## $pack$" "$OUT/report.md" || { echo "FAILED  no metrics of $pack in $OUT/report.md" >&2; exit 1; }
done
echo "all of it works: $((SECONDS - started)) s; $OUT/report.md"
