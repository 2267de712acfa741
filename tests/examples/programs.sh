#!/bin/sh
# The programs as a user meets them: programs.sh FOLDER_OF_PROGRAMS SOURCE_TREE. What they print, exit codes, and on each bad
# input exit code 1 with one clear line.
set -u
programs=$1 root=$2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); cat "$work/err"; }

# good NAME ARGUMENT...: must succeed; its output is in $work/out.
good() {
  program=$1
  shift
  "$programs/$program" "$@" >"$work/out" 2>"$work/err" || fail "$program $*: exit code $?"
}
# bad TEXT NAME ARGUMENT...: must end with exit code 1 and a line that holds TEXT, the last of at most two.
bad() {
  text=$1 program=$2
  shift 2
  status=0
  "$programs/$program" "$@" >"$work/out" 2>"$work/err" || status=$?
  [ $status = 1 ] || fail "$program $*: expected exit code 1, got $status"
  lines=$(grep -vc -e ' memory free$' -e '^Run with --help' "$work/err")
  [ "$lines" = 1 ] || fail "$program $*: expected one line, got $lines"
  grep -q -- "$text" "$work/err" || fail "$program $*: expected '$text'"
}
# holds TEXT: the output of the last program does.
holds() { grep -q -- "$1" "$work/out" || fail "expected '$1' in:
$(cat "$work/out")"; }

golden=$root/tests/golden/pictures model=$root/examples/data/clip
mkdir "$work/pictures" "$work/pictures/in" "$work/empty" "$work/model"
cp "$golden/rgb8.png" "$golden/rgb.jpg" "$golden/cmyk.jpg" "$work/pictures"
cp "$golden/grey.pgm" "$work/pictures/in"
cp "$model"/*.json "$model"/*.txt "$model/model.safetensors" "$work/model"
printf 'not a picture' >"$work/junk.png"
printf 'caf\351\n' >"$work/latin1.txt"
head -c 10000000 /dev/zero | tr '\0' a >"$work/long.txt"

for program in embed zero_shot search probe robustness finetune text_to_image ddpm gallery verify latency subspace methods intrinsic; do
  good $program --help
  holds --threads
  holds --seed
  bad 'nosuch\|required' $program --nosuch 1
done

# embed
good embed --image "$work/pictures" --text "a cat" --out "$work/f.npy" --threads 1
[ "$(wc -l <"$work/f.txt")" -eq 5 ] || fail "embed: expected five names"
[ "$(tail -n 1 "$work/f.txt")" = "a cat" ] || fail "embed: the text comes last"
cp "$work/f.npy" "$work/f1.npy"
good embed --image "$work/pictures" --text "a cat" --out "$work/f.npy" --threads 2 --batch 1
cmp -s "$work/f.npy" "$work/f1.npy" || fail "embed: other features with other threads and batches"
good embed --model "$work/model" --image "$golden/rgb8.png" --json --raw
holds '"kind":"image"'
good embed --model "$work/model" --image "$golden/rgb8.png" --json --image-size 48x80
bad 'expected pixels such as 336, or HEIGHTxWIDTH such as 224x336, got 3x' embed --image "$golden/rgb8.png" --image-size 3x
good embed --model "$root/tests/golden/clip_names/open_clip" --image "$golden/rgb8.png" --image-size 16x40
holds '0.30592  -0.11788  -0.17154  -0.11372' # open_clip's image_transform and resize_pos_embed
bad 'at least one patch of 8 pixels, got 7' embed --image "$golden/rgb8.png" --image-size 7
good embed --image "$work/junk.png" --image "$golden/rgb8.png" # one of two is left out
grep -q "junk.png: expected a PNG" "$work/err" || fail "embed: the broken picture is named"
bad 'expected --image FILE_OR_FOLDER or --text TEXT' embed
bad 'expected at least one picture that can be read; the first: .*nowhere.png: cannot open: No such file' embed --image "$work/nowhere.png"
bad 'no PNG, JPEG or PNM files' embed --image "$work/empty"
bad 'expected UTF-8 text' embed --texts "$work/latin1.txt"
bad 'expected texts of at most 1048576 bytes, got one of 10000000' embed --texts "$work/long.txt"
bad 'No such file' embed --texts "$work/nowhere.txt"
bad 'No such file' embed --model "$work/nowhere" --text a
bad 'expected one of model.safetensors' embed --model "$work/empty" --text a
bad 'cannot create a file' embed --text a --out "$work/nowhere/f.npy"

# wrong configurations
printf '{"image_mean": [0, 0]}' >"$work/model/preprocessor_config.json"
bad 'image_mean: expected 3 numbers, found 2' embed --model "$work/model" --text a
printf '{"crop_size": 224}' >"$work/model/preprocessor_config.json"
bad 'pictures of the model.s 64 pixels, found 224$' embed --model "$work/model" --text a
rm "$work/model/preprocessor_config.json"
printf '{' >"$work/model/config.json"
bad 'config.json:1:' embed --model "$work/model" --text a
printf '{"vision_config": {"patch_size": -1}}' >"$work/model/config.json"
bad 'patch' embed --model "$work/model" --text a
cp "$model/config.json" "$work/model"
head -c 100000 "$model/model.safetensors" >"$work/model/model.safetensors"
bad 'model.safetensors' embed --model "$work/model" --text a
cp "$model/model.safetensors" "$work/model"
rm "$work/model/merges.txt"
bad 'merges.txt' embed --model "$work/model" --text a

# zero_shot
good zero_shot --image "$work/pictures" --label animals --label flags --top 1 --save-probs "$work/p.npy"
holds '%'
good zero_shot --image "$golden/rgb.jpg" --label animals --label flags --templates openai7 --json
holds '"probability"'
bad 'expected labels' zero_shot --image "$work/pictures"
bad 'expected pictures' zero_shot --label a
bad 'expected {} in the template' zero_shot --image "$golden/rgb.jpg" --label a --template "a photo"
bad 'expected at least one picture that can be read; the first: .*junk.png: expected a PNG' zero_shot --image "$work/junk.png" --label a

# search
good search --images "$work/pictures" --top 2 a picture of animals
[ "$(wc -l <"$work/out")" -eq 2 ] || fail "search: expected two pictures"
cp "$work/out" "$work/first"
good search --images "$work/pictures" --top 2 a picture of animals
cmp -s "$work/out" "$work/first" || fail "search: another answer from the index"
grep -q indexing "$work/err" && fail "search: indexed again"
cp "$golden/rgb16.png" "$work/pictures/new.png"
rm "$work/pictures/rgb8.png"
good search --images "$work/pictures" --json animals
holds new.png
grep -q '1 picture is gone' "$work/err" || fail "search: the removed picture is named"
grep -q 'indexing 1 new' "$work/err" || fail "search: the new picture is indexed"
grep -q rgb8.png "$work/out" && fail "search: found a picture that is gone"
bad 'made with another model' search --images "$work/pictures" --dtype bf16 animals
bad 'made with another model' search --images "$work/pictures" --image-size 64x72 animals
mkdir "$work/quick" # the same weights, another activation
cp "$model"/*.txt "$model"/vocab.json "$model/model.safetensors" "$work/quick"
sed 's/"gelu"/"quick_gelu"/' "$model/config.json" >"$work/quick/config.json"
bad 'made with another model' search --images "$work/pictures" --model "$work/quick" animals
good search --images "$work/pictures" --dtype bf16 --rebuild animals
bad 'expected an index of pictures' search --images "$work/pictures" --index "$model/model.safetensors" animals
bad 'expected a folder of pictures' search --images "$work/nowhere" animals
bad 'no PNG, JPEG or PNM files' search --images "$work/empty" animals
bad 'expected UTF-8 text' search --images "$work/pictures" --dtype bf16 "$(cat "$work/latin1.txt")"
latin1="$work/$(printf 'caf\351')"
if mkdir "$latin1" 2>"$work/err"; then  # not on every file system
  cp "$golden/rgb16.png" "$latin1"
  good search --images "$latin1" animals
  good search --images "$latin1" animals
fi
bad 'cannot create a file' search --images "$work/pictures" --index "$work/nowhere/index" animals

# finetune: a run that is killed and taken up again ends with the same adapter and table
tune="--steps 20 --batch 8 --seeds 2 --threads 1"
good finetune $tune --out "$work/whole" --json "$work/whole.json"
"$programs/finetune" $tune --out "$work/killed" >/dev/null 2>&1 &
run=$!
while kill -0 $run 2>/dev/null && [ "$(cat "$work/killed/state/COMMIT" 2>/dev/null | head -c 1)" = "" ]; do sleep 0.05; done
sleep 0.3
kill -9 $run 2>/dev/null && wait $run 2>/dev/null
good finetune $tune --out "$work/killed" --json "$work/killed.json" --resume
cmp -s "$work/whole/adapter_model.safetensors" "$work/killed/adapter_model.safetensors" || fail "finetune --resume: another adapter"
[ "$(sed 's/"seconds":[^,}]*//' "$work/whole.json")" = "$(sed 's/"seconds":[^,}]*//' "$work/killed.json")" ] || fail "finetune --resume: other numbers"
bad 'expected a run with the options' finetune $tune --rank 2 --out "$work/killed" --resume

# finetune on a CLIP and pictures with captions: both towers, a held-out share, and the same bits when killed and taken up again
mkdir "$work/pairs" "$work/few"
for name in rgb8.png rgb.jpg cmyk.jpg grey8.png palette8.png interlaced.png rgba8.png grey.jpg; do
  cp "$golden/$name" "$work/pairs"
  printf 'a picture of %s\nnumber %s\n' "${name%.*}" "${#name}" >"$work/pairs/${name%.*}.txt"
done
cp "$work/pairs"/rgb8.* "$work/pairs"/cmyk.* "$work/few"
tune="--data $work/pairs --validation 0.25 --steps 40 --batch 4 --threads 1"
good finetune $tune --out "$work/pairs_whole" --json "$work/pairs_whole.json"
holds '^chance  *50.0  *100.0  *50.0  *100.0$'
for key in before after chance adapter_parameters model_parameters seconds picture_to_text_1 text_to_picture_5; do grep -q "\"$key\"" "$work/pairs_whole.json" || fail "finetune --json: no $key"; done
grep -q '"held_out": 2,' "$work/pairs_whole.json" || fail "finetune --validation: another share"
for key in vision_model text_model; do grep -aq "$key.*lora_A" "$work/pairs_whole/adapter_model.safetensors" || fail "finetune: no $key in the adapter"; done
[ -s "$work/pairs_whole/loss.png" ] || fail "finetune: no loss curve"
"$programs/finetune" $tune --out "$work/pairs_killed" >/dev/null 2>&1 &
run=$!
while kill -0 $run 2>/dev/null && [ ! -s "$work/pairs_killed/state/COMMIT" ]; do sleep 0.02; done
kill -9 $run 2>/dev/null && wait $run 2>/dev/null
good finetune $tune --out "$work/pairs_killed" --json "$work/pairs_killed.json" --resume
grep -q 'resumed at step' "$work/err" || fail "finetune --resume: began anew"
cmp -s "$work/pairs_whole/adapter_model.safetensors" "$work/pairs_killed/adapter_model.safetensors" || fail "finetune --resume: another adapter of pictures with captions"
[ "$(grep -v seconds "$work/pairs_whole.json")" = "$(grep -v seconds "$work/pairs_killed.json")" ] || fail "finetune --resume: other numbers"
bad 'expected a run with the options' finetune $tune --train text --out "$work/pairs_killed" --resume
for method in dora loha lokr ia3 adapter prefix; do good finetune --data "$work/pairs" --steps 2 --method $method --train text --out "$work/pairs_$method"; done
good finetune --data "$work/pairs" --steps 1 --method intrinsic --dimension 50 --target 'text_model.*.q_proj' --out "$work/pairs_intrinsic"
[ -s "$work/pairs_intrinsic/intrinsic.safetensors" ] || fail "finetune --method intrinsic: no file of it"
good finetune --data "$work/pairs" --epochs 2 --repeats 2 --trigger sks --lr-schedule linear --warmup 1 --json "$work/pairs.json" --out "$work/pairs_epochs"
grep -q '"steps": 4,' "$work/pairs.json" || fail "finetune --epochs: another number of steps"
for method in bitfit full; do
  good finetune --data "$work/pairs" --steps 2 --method $method --train vision --out "$work/pairs_$method"
  good embed --model "$work/pairs_$method" --image "$golden/rgb8.png" --text "a picture" --json
done
bad 'expected at least 4 pictures with captions, found 2' finetune --data "$work/few" --out "$work/none"
bad 'expected vision, text or both for a CLIP, got unet' finetune --data "$work/pairs" --train unet
bad 'expected vision for a CLIP on the emoji, got text' finetune --train text
bad 'expected unet, text or both for a diffusion model, got vision' finetune --model "$root/examples/data/diffusion" --train vision
bad 'is of no use to' finetune --data "$work/pairs" --seeds 2
bad 'is of no use to' finetune --validation 0.2
bad 'another folder than the model' finetune --data "$work/pairs" --model "$work/model" --out "$work/model"
# its large batches in small memory, frozen weights in bfloat16, weights between before and after, shifted pictures
losses() { grep -o '  loss [0-9.]*' "$work/err"; }
rest="--validation 0.25 --steps 3 --batch 6 --warmup 0 --out $work/pairs_more"
tune="--data $work/pairs $rest"
good finetune $tune
losses >"$work/losses"
[ "$(wc -l <"$work/losses")" -eq 3 ] || fail "finetune: expected three losses"
good finetune $tune --micro-batch 4
[ "$(losses)" = "$(cat "$work/losses")" ] || fail "finetune --micro-batch: other losses"
good finetune $tune --micro-batch 4 --dtype bf16
good finetune $tune --method full --shifted blur --shifted "$work/pairs" --interpolate 0 --interpolate 0.5 --json "$work/pairs_more.json"
holds "blur: text, top-1  *$work/pairs: text, top-1"
[ "$(sed -n 's/^before *//p' "$work/out")" = "$(sed -n 's/^alpha-0.0 *//p' "$work/out")" ] || fail "finetune --interpolate 0: another row than before"
for key in shifted alpha-0.5; do grep -q "\"$key\"" "$work/pairs_more.json" || fail "finetune --json: no $key"; done
good embed --model "$work/pairs_more/alpha-0.5" --text "a picture" --json
good finetune $tune --interpolate 0.5 --image-size 48x72
good embed --model "$work/pairs_more/alpha-0.5" --text "a picture" --json
good finetune $tune --method full --from-scratch --micro-batch 2
bad 'trains the weights themselves' finetune $tune --method full --dtype bf16
bad 'interpolate: expected a method whose outcome are weights' finetune $tune --method prefix --interpolate 0.5
bad 'expected --method full of both towers' finetune $tune --from-scratch
bad 'expected grey, blur, noise, rotation or a folder of pictures with captions, got snow' finetune $tune --shifted snow
bad 'is of no use to' finetune --micro-batch 4
mkdir "$work/one_broken"
cp "$work/pairs"/* "$work/one_broken"
cp "$work/junk.png" "$work/one_broken/grey8.png"
good finetune $rest --data "$work/one_broken"
grep -q 'one_broken/grey8.png: expected a PNG' "$work/err" || fail "finetune: the broken picture is not named"
grep -q '^1 of 8 pictures could not be read and were left out$' "$work/err" || fail "finetune: no word on the picture left out"
rm "$work/one_broken"/*.txt
bad 'expected a caption in' finetune $rest --data "$work/one_broken"
bad "expected captions that tell the pictures apart, found 'sks' for all" finetune $rest --data "$work/one_broken" --trigger sks

# ddpm: a killed run goes on to the same pictures
small="--side 16 --width 8 --batch 4 --steps 20 --sample-steps 2 --count 2"
good ddpm $small --out "$work/ddpm_whole"
holds 'latents of 64x64 pixels'
"$programs/ddpm" $small --out "$work/ddpm_killed" >"$work/out" 2>"$work/err" &
until [ -e "$work/ddpm_killed/state/COMMIT" ] || ! kill -0 $! 2>"$work/err"; do sleep 0.05; done
kill -9 $! 2>"$work/err"
wait $! 2>"$work/err"
good ddpm $small --out "$work/ddpm_killed" --resume
grep -q 'resumed at step' "$work/err" || fail "ddpm: nothing was resumed"
cmp -s "$work/ddpm_whole/samples.png" "$work/ddpm_killed/samples.png" || fail "ddpm: other pictures after a kill"
bad 'expected a run with the options' ddpm $small --out "$work/ddpm_killed" --resume --seed 3

# text_to_image with the small model that ships
good text_to_image --prompt "red apple" --steps 4 --out "$work/a.png" --threads 1
grep -q "red apple" "$work/a.png" || fail "text_to_image: the picture carries no prompt"
good text_to_image --prompt "red apple" --steps 4 --out "$work/b.png" --threads 2
cmp -s "$work/a.png" "$work/b.png" || fail "text_to_image: another picture with other threads"
good text_to_image --prompt "red apple" --steps 4 --out "$work/c.png" --lora line-art:0.5 --lora neon:0.5
grep -q "line-art:0.5, neon:0.5" "$work/c.png" || fail "text_to_image: the picture does not name its adapters"
cmp -s "$work/a.png" "$work/c.png" && fail "text_to_image: adapters change nothing"
good text_to_image --steps 2 --out "$work/show.png"
holds 'a picture for each of 12 prompts'
good text_to_image --prompt "" --steps 2 --out "$work/empty.png"
good text_to_image --prompt "red apple" --steps 2 --out "$work/w.png" --winograd 4
bad 'expected --dtype f32 or bf16' text_to_image --prompt a --winograd 2 --dtype int8 --out "$work/d.png"
bad 'expected a name that ends with .png' text_to_image --prompt a --out "$work/a.jpg"
bad 'multiples of 8' text_to_image --prompt a --width 65 --out "$work/d.png"
bad 'there is no such file' text_to_image --prompt a --lora nowhere:half --out "$work/d.png"
bad 'nowhere' text_to_image --prompt a --lora nowhere --out "$work/d.png"
bad 'model_index.json' text_to_image --prompt a --model "$work/empty" --out "$work/d.png"
bad 'nowhere.safetensors' text_to_image --prompt a --ip-adapter "$work/nowhere.safetensors:$golden/rgb8.png" --out "$work/d.png"
bad 'expected FILE:IMAGE' text_to_image --prompt a --ip-adapter "$work/nowhere.safetensors" --out "$work/d.png"
bad 'expected tensors named image_proj' text_to_image --prompt a --ip-adapter "$root/examples/data/loras/neon.safetensors:$golden/rgb8.png" --out "$work/d.png"
[ -e "$work/d.png" ] && fail "text_to_image: a picture of an error"
good gallery --count 2 --steps 2 --out "$work/gallery.png" --json "$work/gallery.json"
grep -q clip_score "$work/gallery.json" || fail "gallery: no scores"
good gallery --styles --steps 2 --out "$work/styles.png"

# finetune on the small diffusion model
mkdir "$work/mine"
cp "$golden/rgb8.png" "$work/mine/one.png"
cp "$golden/rgb.jpg" "$work/mine/two.jpg"
cp "$golden/cmyk.jpg" "$work/mine/three.jpg"
printf 'a square\na picture of a square\n' >"$work/mine/one.txt"
tune="--model $root/examples/data/diffusion --data $work/mine --batch 2 --threads 1"
bad 'expected a caption in .*three.txt' finetune $tune --steps 10 --out "$work/mine.safetensors"
printf '{"file_name": "three.jpg", "text": "colours"}\n{"file_name": "two.jpg", "text": "more colours"}\n' >"$work/mine/metadata.jsonl"
good finetune $tune --steps 10 --out "$work/mine.safetensors"
good text_to_image --prompt "a square" --steps 2 --lora "$work/mine.safetensors:0.7" --strict --out "$work/d.png"
grep -q 'mine.safetensors: used \([0-9]*\) of \1$' "$work/err" || fail "finetune: text_to_image does not use all of the adapter"
"$programs/finetune" $tune --steps 400 --out "$work/stopped.safetensors" >/dev/null 2>&1 &
run=$!
while kill -0 $run 2>/dev/null && [ ! -s "$work/stopped.state/COMMIT" ]; do sleep 0.05; done
kill -9 $run 2>/dev/null && wait $run 2>/dev/null
good finetune $tune --steps 400 --out "$work/stopped.safetensors" --resume
grep -q 'resumed at step' "$work/err" || fail "finetune --resume: began anew"
good finetune $tune --steps 400 --out "$work/left.safetensors"
cmp -s "$work/stopped.safetensors" "$work/left.safetensors" || fail "finetune --resume: another adapter of the diffusion model"
for method in dora loha lokr; do good finetune $tune --steps 2 --method $method --train both --out "$work/$method.safetensors"; done
for method in ia3 adapter prefix; do good finetune $tune --steps 2 --method $method --out "$work/$method"; done
for dtype in bf16 int8; do good finetune $tune --steps 2 --dtype $dtype --narrow-saved --out "$work/$dtype.safetensors"; done
good finetune $tune --steps 2 --conv-rank 2 --class-data "$work/mine" --grad-accum 2 --checkpointing --trigger sks --format diffusers --out "$work/more.safetensors"
good text_to_image --prompt "a square" --steps 2 --lora "$work/more.safetensors" --lora "$work/dora.safetensors" --lora "$work/ia3" --strict --out "$work/d.png"
good finetune $tune --steps 2 --train both --format peft --out "$work/parts"
good text_to_image --prompt "a square" --steps 2 --lora "$work/parts/unet" --lora "$work/parts/text_encoder" --strict --out "$work/d.png"
bad 'found it for each of unet, text_encoder: load these' text_to_image --prompt "a square" --steps 2 --lora "$work/parts" --out "$work/d.png"
good finetune $tune --steps 2 --method intrinsic --dimension 50 --out "$work/intrinsic.safetensors"
good text_to_image --prompt "a square" --steps 2 --lora "$work/intrinsic.safetensors" --out "$work/d.png"
grep -q 'an intrinsic vector for' "$work/err" || fail "text_to_image: takes no intrinsic vector"
good finetune $tune --steps 2 --validation 0.4 --out "$work/held.safetensors" --json "$work/held.json"
holds '1 pictures held out: loss [0-9.]* before, [0-9.]* after'
grep -q '"validation_loss_after"' "$work/held.json" || fail "finetune --validation: no loss in the numbers"
for method in bitfit full; do
  good finetune $tune --steps 2 --method $method --train both --out "$work/$method" --json "$work/$method.json"
  good text_to_image --model "$work/$method" --prompt "a square" --steps 2 --out "$work/d.png"
  for part in unet/diffusion_pytorch_model text_encoder/model; do
    cmp -s "$work/$method/$part.safetensors" "$root/examples/data/diffusion/$part.safetensors" && fail "finetune --method $method: $part is as it was"
  done
  cmp -s "$work/$method/vae/diffusion_pytorch_model.safetensors" "$root/examples/data/diffusion/vae/diffusion_pytorch_model.safetensors" || fail "finetune --method $method: another autoencoder"
  bad 'expected a new or empty folder' finetune $tune --steps 2 --method $method --out "$work/$method"
done
bad 'trains the weights themselves' finetune $tune --steps 2 --method full --dtype bf16 --out "$work/none"
bad 'target is of no use' finetune $tune --steps 2 --method full --target unet.conv_in --out "$work/none"
mkdir "$work/sizes"
cp "$work/mine"/*.png "$work/mine"/*.jpg "$root/tests/golden/preprocess_modes/rgb_15x40.png" "$root/tests/golden/preprocess_modes/rgb_33x31.png" "$work/sizes"
for name in one two three rgb_15x40 rgb_33x31; do printf 'small, %s, of colours\n' $name >"$work/sizes/$name.txt"; done
sizes="--model $root/examples/data/diffusion --data $work/sizes --batch 2 --threads 1 --trigger sks"
same() { cmp -s "$work/$1.safetensors" "$work/$2.safetensors" || fail "finetune: $1 is another adapter than $2"; }
other() { if cmp -s "$work/$1.safetensors" "$work/$2.safetensors"; then fail "finetune: $1 is the same adapter as $2"; fi; }
good finetune $sizes --epochs 2 --repeats 3 --buckets --json "$work/sizes.json" --out "$work/sizes.safetensors"
grep -q 'buckets: 80x48 3, 64x64 1, 32x96 1$' "$work/err" || fail "finetune --buckets: other buckets"
for key in '"steps": 16$' '"method": "lora"' '"adapter_parameters": ' '"model_parameters": ' '"seconds": ' '"epochs": 1\.' '"first_loss": ' '"last_loss": ' '"losses": '; do
  grep -q "$key" "$work/sizes.json" || fail "finetune --json: no $key"
done
grep -q "\"adapter_bytes\": $(wc -c <"$work/sizes.safetensors")," "$work/sizes.json" || fail "finetune --json: another size of the file"
for key in '"ss_num_epochs":"2"' '"ss_enable_bucket":"True"' '"ss_shuffle_caption":"False"' '"ss_lr_scheduler":"cosine"' '"ss_unet_lr":"0.002"'; do
  grep -aq "$key" "$work/sizes.safetensors" || fail "finetune: no $key in the adapter's metadata"
done
shuffled="$sizes --steps 60 --buckets --shuffle-captions --repeats 2"
"$programs/finetune" $shuffled --out "$work/broken.safetensors" >/dev/null 2>&1 &
run=$!
while kill -0 $run 2>/dev/null && [ ! -s "$work/broken.state/COMMIT" ]; do sleep 0.05; done
kill -9 $run 2>/dev/null && wait $run 2>/dev/null
good finetune $shuffled --out "$work/broken.safetensors" --resume --json "$work/broken.json"
grep -q 'resumed at step' "$work/err" || fail "finetune --resume: began anew"
good finetune $shuffled --out "$work/unbroken.safetensors" --json "$work/unbroken.json"
same broken unbroken
[ "$(grep -v seconds "$work/broken.json")" = "$(grep -v seconds "$work/unbroken.json")" ] || fail "finetune --resume: other numbers"
"$programs/finetune" $sizes --steps 60 --buckets --repeats 2 --out "$work/broken.safetensors" --resume >"$work/out" 2>"$work/err" && fail "finetune --resume: went on with other options"
grep -q 'error: .*expected a run with the options' "$work/err" || fail "finetune --resume: no word on other options"
few="$sizes --steps 4"
good finetune $few --out "$work/plain.safetensors"
good finetune $few --shuffle-captions --out "$work/words.safetensors"
good finetune $few --lr-schedule constant --warmup 0 --out "$work/constant.safetensors"
good finetune $few --lr-schedule linear --warmup 0 --out "$work/linear.safetensors"
other words plain
other linear constant
good finetune $few --train both --out "$work/both.safetensors"
good finetune $few --train both --text-lr 0.002 --out "$work/both_same.safetensors"
good finetune $few --train both --text-lr 0.00001 --out "$work/both_slow.safetensors"
same both_same both
other both_slow both
grep -aq '"ss_text_encoder_lr":"1e-05"' "$work/both_slow.safetensors" || fail "finetune --text-lr: not in the adapter's metadata"
good finetune $few --class-data "$work/sizes" --buckets --grad-accum 2 --out "$work/class.safetensors"
grep -q '; of the class: 80x48 3, 64x64 1, 32x96 1$' "$work/err" || fail "finetune --buckets: other buckets of the class"
good finetune $few --cache "$work/latents.safetensors" --out "$work/cached.safetensors"
same cached plain
good finetune $few --cache "$work/latents.safetensors" --out "$work/cached.safetensors"
same cached plain
grep -q 'latents of 5 pictures are taken from it$' "$work/err" || fail "finetune --cache: not used"
grep -q '^latents [0-9]* %' "$work/err" && fail "finetune --cache: computed again"
touch "$work/sizes/one.png"
good finetune $few --cache "$work/latents.safetensors" --out "$work/cached.safetensors"
grep -q 'they are computed again$' "$work/err" || fail "finetune --cache: latents of a picture that was changed"
good finetune $few --buckets --cache "$work/latents.safetensors" --out "$work/cached.safetensors"
grep -q 'they are computed again$' "$work/err" || fail "finetune --cache: latents of other sizes"
printf '# what the options above say\nsteps = 9\ntrigger = "sks"\nbatch = 2\nlr-schedule = "constant"\nwarmup = 0\n' >"$work/options.toml"
good finetune --config "$work/options.toml" --model "$root/examples/data/diffusion" --data "$work/sizes" --threads 1 --steps 4 --out "$work/by_file.safetensors"
same by_file constant
printf 'steps = 4\nepocs = 2\n' >"$work/options.toml"
bad "no option 'epocs'; nearest: epochs" finetune $few --config "$work/options.toml"
printf '[training]\nsteps = 4\n' >"$work/options.toml"
bad 'without sections, found \[training\]' finetune $few --config "$work/options.toml"
bad 'nowhere.toml was not readable' finetune $few --config "$work/nowhere.toml"
bad 'steps excludes --epochs' finetune $few --epochs 2
bad 'text-lr: expected --train text or both' finetune $few --text-lr 0.001
bad 'not in {constant,linear,cosine}' finetune $few --lr-schedule polynomial
bad 'expected latents that a run has kept there' finetune $few --cache "$work/plain.safetensors"
bad 'is of no use to' finetune --epochs 2
bad 'is of no use to' finetune $tune --keep 0.3
bad 'is of no use to' finetune --style neon
bad 'expected a multiple of 16' finetune $tune --resolution 60

# pretrain
good pretrain diffusion --vae-steps 2 --vae-batch 2 --steps 2 --batch 4 --views 1 --painted 0 --threads 1 --out "$work/pretrained"
factor=$(sed -n 's/.*"scaling_factor": *\([0-9.e+-]*\).*/\1/p' "$work/pretrained/vae/config.json")
awk "BEGIN { exit !($factor > 0.05 && $factor < 20) }" || fail "pretrain diffusion: a scaling_factor of $factor"
good text_to_image --model "$work/pretrained" --prompt "a square" --steps 1 --out "$work/d.png"
good pretrain clip --steps 2 --batch 8 --width 32 --layers 1 --threads 1 --out "$work/pretrained_clip"
good embed --model "$work/pretrained_clip" --text "a square" --json

# the papers' tables
good latency --rounds 2 --threads 1 --out "$work/latency" --json "$work/latency.json"
holds '32 x 24'
holds 'a tower of its own  *591872'
grep -q '"swap_seconds"' "$work/latency.json" || fail "latency: no seconds of a swap"
bad 'expected --model or --full-size' latency --model "$model" --full-size
good subspace --steps 3 --batch 8 --small 2 --large 4 --threads 1 --out "$work/subspace" --json "$work/subspace.json"
holds 'v_proj BA'
bad 'expected at most --large' subspace --small 4 --large 2
several="--model $root/examples/data/diffusion --data $work/mine --only full --only ia3 --steps 2 --batch 2 --threads 1 --out $work/methods"
good methods $several --seeds 2
holds 'IA3  *5376'
cp "$work/out" "$work/methods.table"
good methods $several --seeds 2 --resume
cmp -s "$work/out" "$work/methods.table" || fail "methods --resume: another table"
bad 'expected a run with the options' methods $several --resume --lr 1e-4
bad 'is of no use to' methods $several --development
good methods --only bitfit --steps 2 --batch 8 --seeds 1 --threads 1 --out "$work/methods"
holds 'BitFit  *[1-9]'
good intrinsic --steps 2 --seeds 1 --batch 8 --dimension 5 --dimension 20 --threads 1 --out "$work/intrinsic"
holds 'upside down'
good intrinsic --steps 2 --seeds 1 --batch 8 --dimension 5 --dimension 20 --threads 1 --out "$work/intrinsic" --resume
bad 'expected a run with the options' intrinsic --steps 3 --seeds 1 --batch 8 --out "$work/intrinsic" --resume

# probe
bad 'expected a folder' probe --data "$work/nowhere"
bad 'at least two' probe --data "$work/empty"

[ $failures = 0 ] && echo "all programs do what they should"
exit $failures
