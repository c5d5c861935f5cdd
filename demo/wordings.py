"""How each question is put: for training, and others that training never sees.

`{a|b}` is either of both, `<name>` is filled in.
"""

from __future__ import annotations

import itertools
import random
import re

from demo import styles

PICTURE = "{image|picture|photo}"
SHOWN = "{is it|is this|is that|is shown|is there|do you see|can you see|is in the image|is in this image|is in the picture|is in the photo|does the image show|does the picture show|am I looking at}"
TRAINED: dict[str, tuple[str, ...]] = {
    "shape": (
        "{What is|What's} {this|it|shown here}, which shape?",
        "{Say|Write} which shape {you see|this is|it is}.",
        "The shape {here|in the image|in the picture} is what?",
        "{What|Which} shape " + SHOWN + "?",
        "{What|Which} kind of shape {is it|is this|do you see|is shown}?",
        "What is {the|its|this} shape?",
        "{Name|Tell me|Say|Identify} {the|this|its} shape.",
        "{Can you tell me|Could you tell me|Please tell me|Do you know} {the|what|which} shape {it is|this is}?",
        "Is it a circle, a square, a triangle or a star?",
    ),
    "colour": (
        "{What|Which} {color|colour} {did you see on|is used for} the <s>?",
        "{Name|Say|Give me} the <s>'s {color|colour}.",
        "{Could you tell me|I want to know} the {color|colour} {the <s> has|of this <s>}.",
        "The {color|colour} of the <s>?",
        "{What|Which} {color|colour} is {the|this} <s>?",
        "{What|Which} {color|colour} {does the <s> have|has the <s>|is the <s> in the image|is the <s> here}?",
        "{What is|What's|Tell me|Name|Say} the {color|colour} of the <s>.",
        "{What is|What's} the {color|colour} of the <s>?",
        "{Can you tell me|Please tell me|Do you know} {what|which} {color|colour} the <s> {is|has}?",
    ),
    "colour it": (
        "{Could you|Please} {tell me|say} {the|its} {color|colour}.",
        "{Which|What} {color|colour} {do we have|has it|can you see}?",
        "The {color|colour}?",
        "{What|Which} {color|colour} {is it|is this|do you see|is shown|does it have|is the shape|is that}?",
        "{What is|What's|Tell me|Name} {the|its} {color|colour}.",
        "{Can you tell me|Please tell me} {the|its} {color|colour}?",
    ),
    "shape of": (
        "{Can you|Could you} {tell me|say} {which|what} shape is <c>?",
        "{Which|What} {object|thing|figure} is <c>?",
        "{Say|Identify} the <c> {shape|object|thing|figure}.",
        "The <c> {one|thing|object} is {what|which shape}?",
        "{What|Which} shape is {the <c> one|the <c> thing|the <c> object|<c>|painted <c>}?",
        "What is {the <c> shape|the <c> thing|the <c> object|<c>}?",
        "{Tell me|Name} the shape {that is <c>|of the <c> one|of the <c> thing}.",
        "What does the <c> {one|thing} look like?",
    ),
    "count": (
        "{What is|What's} the {amount|count} of {shapes|objects|things}?",
        "{Number|Count} of {objects|things|figures}?",
        "How many {shapes|objects|things} {in total|altogether|in this image|in the photo|appear|does it have}?",
        "{I want to know|Do you know} how many {shapes|things|objects} {there are|it shows}.",
        "How many {shapes|objects|things|figures} {are there|do you see|can you see|are shown|are in the image|are in the picture|are in this picture|are visible|does the image show|do you count}?",
        "How many {shapes|objects|things}?",
        "Count the {shapes|objects|things|figures}{| in the image| in the picture| please}.",
        "{What is|Tell me|Give me|What's} the number of {objects|things|figures}.",
        "{Can you|Please|Could you} count the {shapes|objects|things}?",
        "{Tell me|Say} how many {shapes|objects|things} {there are|you see}.",
    ),
    "how many": (
        "How many <ss> {do you count|does the image show|does it show|in the photo|in this image|in this picture}?",
        "{Can you|Could you|Please} count the <ss>{|?}",
        "{Say|Give me} the number of <ss>{| in the image| in this picture}.",
        "{Number|Count} of <ss>?",
        "How many <ss> {are there|do you see|can you see|are in the image|are in the picture|are shown}?",
        "How many <ss>?",
        "Count the <ss>.",
        "{Tell me|What is} the number of <ss>.",
    ),
    "where": (
        "{Where's|Where is|Where are we to see} {a|this} <n>?",
        "Where {did you find|can one see|do we find|does one find|do we see} the <n>?",
        "{The place|The position|Position} of the <n>?",
        "{Where|In which part} {does the <n> sit|does the <n> lie|was the <n>}?",
        "{Give me|Say|Describe} {the position|the place|the location} of the <n>.",
        "{Let me know|Could you say|I want to know} where the <n> {is|lies}.",
        "Where is the <n>?",
        "Where is the <n> {in the image|in the picture|in this photo|located|placed}?",
        "Where {can I find|do I find|would I find|did you see|can you see} the <n>?",
        "Where in the {image|picture|photo} is the <n>?",
        "{What is|What's|Name} the {position|place|location} of the <n>?",
        "In {which|what} {part|corner or side|area|place} of the {image|picture} is the <n>?",
        "{Find|Locate} the <n>.",
        "{Can you tell me|Please tell me|Do you know|Say} where the <n> is?",
        "{Which|What} position does the <n> have?",
        "At {which|what} {place|position} is the <n>?",
    ),
    "at": (
        "{What|Which shape} {can I find|do I find|is there to find|is there to be seen|sits|is located} <w>?",
        "{What thing|What object|What} {did you see|do we see|can we see|can be found} <w>?",
        "{Look|Tell me what you see|Say what is there} <w>.",
        "{What is|What's} <w>?",
        "{What|Which shape|Which object|Which thing} {is|do you see|can you see|is shown|lies} <w>?",
        "{Is there anything|Do you see anything|Is something} <w>?",
        "{Describe|Name|Tell me} what is <w>.",
        "What {is there to see|does the image show|does the picture show|can be seen} <w>?",
    ),
    "is": (
        "{Can I|Could you|Do we|Could I} {see|find|spot} <an>{| here| in it| in this image| in this picture}?",
        "{Did you|Were you able to} {see|find|spot|notice} <an>{| in the image| there}?",
        "{Does|Did} the {picture|photo} {also |}{include|depict} <an>?",
        "{Is|Was} there <an> {in the photo|to see|in it|to be seen|among the shapes}?",
        "{Have|Do} you {found|spot|notice} <an>?",
        "Is there {some|any} <n>?",
        "Is there <an>?",
        "Is there <an> {in the image|in the picture|in this photo|here|somewhere|anywhere}?",
        "{Do|Can} you see <an>?",
        "{Do|Can} you {see|find|spot} <an> {in the image|in the picture|here|anywhere}?",
        "Is <an> {in the picture|in the image|here|shown|visible|there|part of this image}?",
        "{Does|Did} the {picture|photo} {show|contain|have} <an>?",
        "Does {it|this|this image|this picture} {show|contain|have|include} <an>?",
        "{Are there any|Do you see any|Can you see any} <ns>?",
        "{Tell me|Say|Check|Can you tell me|Please tell me} {if|whether} there is <an>.",
        "Is there <an> or not?",
    ),
    "describe": (
        "{Please|Now} {tell me|say} what {is here|you see here|is there|this is}.",
        "{Tell me|Say} what is {in it|here|there|in this photo|in this picture}.",
        "What {are we looking at|is there to see|can be seen|can you make out|can I see}{| here| in the picture| in this photo}?",
        "{Please|Could you} {list|name} {the shapes|everything|all you see}.",
        "{Tell me|Say|Write} {all|everything} {you see|about this picture|about this image}.",
        "Describe {the|this|my} " + PICTURE + ".",
        "Describe what {you see|is shown|is there|you can see|is in it}.",
        "What {do you see|can you see|is it|is this|is that|is shown|is there|is here|do we see}{| here| in the image| in the picture}?",
        "{What is|What's} in {the|this|my} " + PICTURE + "?",
        "What {does the|does this} " + PICTURE + " {show|contain|depict}?",
        "{Tell me|Say} what {you see|you can see|is shown|the image shows|the picture shows}.",
        "{Can you|Could you|Would you} {please |}describe {the|this} " + PICTURE + "?",
        "{Give me a description|A description}{ of the image|, please| of this picture}.",
        "{List|Name} {the shapes|all shapes|everything you see|the objects|what you see}.",
        "{Which|What} shapes and colors {do you see|are there|are shown}?",
        "{Explain|Look at} {the|this} " + PICTURE + ".",
        "What shapes {are there|do you see|are in the image}?",
    ),
    "direction": (
        "{To which side|Which way|To where} {does it|does the <s>|does the shape} {move|go}?",
        "{Say|Show me|Do you know} {which way|in what direction|where} {it|the <s>|the shape} {goes|moves|is going|is moving}.",
        "{Which|What} {way|direction} is {it|the <s>|the shape} {going|heading|travelling}?",
        "The direction{| of the <s>| of the shape}?",
        "{Which|What} {way|direction} {does it|does the <s>|does this <s>|does the shape} {move|go|travel}?",
        "In {which|what} direction {does it|does the <s>|does the shape} {move|go|travel}?",
        "{Which way|What direction|In which direction} is {it|the <s>|the shape} moving?",
        "Where {does|did} {it|the <s>|the shape} {go|move}?",
        "Where {is it|is the <s>} {going|moving|heading}?",
        "How {does it|does the <s>|does the shape} move?",
        "{What is|What's|Name|Say} the direction of {the motion|the movement|the <s>}.",
        "{Tell me|Say} {the direction|in which direction it moves|where it goes|how it moves}.",
        "{Does it|Does the <s>} {go|move} left, right, up or down?",
    ),
    "event": (
        "{Please|Now} {tell me|say} what {happens|is going on|you see}{| here}.",
        "What {can you see|can be seen|do we see|takes place}{| here| in this video| in the clip}?",
        "{Tell me|Say} what {is in this clip|this clip shows|is in the video|goes on here|happened in the video}.",
        "{Give me|Write} a description{| of the video| of this clip}.",
        "Describe {the|this|my} {video|clip|movie|film}.",
        "Describe what {happens|you see|is happening|is going on}.",
        "What {happens|is happening|happened|is going on|goes on}{| here| in the video| in this clip}?",
        "What do you see{| in the video| in the clip| here}?",
        "{What is|What's} in {the|this} {video|clip}?",
        "What {is it|is this|is shown}?",
        "What does {the|this} {video|clip} show?",
        "{Tell me|Say} what {happens|happens here|you see|the video shows|moves}.",
        "{Can you|Could you} {please |}describe {the|this} {video|clip}?",
        "What {moves|is moving}?",
        "{Watch|Explain|Summarize} {the|this} {video|clip}.",
    ),
    "moves": (
        "{Can you see|Do you see|Did you see} {any movement|any motion|something move|the <s> move}?",
        "{Do|Did|Can|Could} {you|we|I|one} {see|notice|watch|spot} {the <s>|the shape|this|something} {move|moving}?",
        "{Do you notice|Did you see|Did we see|Could I watch} it {move|moving|go}?",
        "{Can you|Could you|Please} {say|tell me} {if|whether} {it|the <s>|the shape} {moves|is moving}.",
        "{Did|Will} {it|the <s>|the shape} move?",
        "Does {it|the <s>|the shape|anything|something} move?",
        "Is {it|the <s>|the shape|anything|something} moving?",
        "Is there {any |}{motion|movement}?",
        "Does {it|the <s>} {stand|stay} still?",
    ),
    "moving shape": (
        "{What|Which} shape {do we see|can you see|can be seen|is in the clip|appears}{|, moving or not}?",
        "{Say|Can you tell me} {which|what} shape {it is|moves}.",
        "{What|Which} {object|thing|figure} {moves|is moving|do you see}?",
        "{What|Which} shape {moves|is it|is moving|is in the video|do you see|is shown|is this|goes there}?",
        "{What is|Tell me|Name} {the shape|the moving shape}.",
        "{What|Which} kind of shape {moves|is it|is moving}?",
    ),
    "moving colour": (
        "{What|Which} {color|colour} {has|does} {it have|the thing have|the <s> have}?",
        "{Say|Can you tell me} the {color|colour} of {it|the moving shape|the <s>}.",
        "{What|Which} {color|colour} is the {thing|object}{| that goes there| in the video}?",
        "{What|Which} {color|colour} is {it|the <s>|the moving <s>|the shape|the moving shape}?",
        "{What is|What's|Tell me|Name} the {color|colour} of {the <s>|the shape|the moving thing}.",
        "{What|Which} {color|colour} does {it|the <s>} have?",
    ),
    "beeps": (
        "{What is|What's} the {count|amount} of {beeps|tones|sounds}?",
        "{Number|Count} of {tones|sounds|signals}?",
        "How many {beeps|tones|sounds|signals} {can you count|are heard|were heard|could be heard|does it have|are in it|come}?",
        "{Do you know|I want to know|Can you tell me} how many {beeps|tones|sounds} {there are|you heard|it has}.",
        "How many {beeps|tones|sounds} {can I hear|can one hear|do we hear}?",
        "How many {beeps|tones|sounds|signals} {are there|do you hear|can you hear|are in the audio|were there|are in the sound|did you hear|do you count}?",
        "How many {beeps|tones|times}?",
        "How {many times|often} {does it beep|do you hear a beep|did it beep|is there a beep}?",
        "Count the {beeps|tones|sounds|signals}{| please| for me}.",
        "{What is|What's|Tell me|Give me|Say} the number of {tones|sounds|signals}.",
        "{Can you|Please|Could you} count the {beeps|tones|sounds}?",
        "{Tell me|Say} how many {beeps|tones} {there are|you hear}.",
    ),
    "pitch": (
        "{Would you say it is|Do you call it|Was it|Do you find it} {high or low|low or high}?",
        "{Say|Can you tell me|Do you know} {if|whether} the {beep|pitch|sound} is {high or low|low or high}.",
        "{High or low|Low or high} {pitch|sound|beep|beeps}?",
        "{A high or a low|A low or a high} {tone|sound|beep|one}?",
        "Is {the tone|the sound|the pitch|it|this|the beep|this sound} {high or low|low or high|high, or is it low|a high or a low one}?",
        "{Is it|Is this|Do you hear} a {high or a low|low or a high} {tone|sound|beep|pitch}?",
        "Are the {beeps|tones|sounds} {high or low|low or high}?",
        "How high is {the tone|the sound|the pitch|it}?",
        "{What is|What's|Tell me|Name|Say} the pitch{| of the tone| of the beeps| of the sound}.",
        "{What|Which} pitch {is it|does it have|do you hear|has the tone|do the beeps have}?",
        "{Tell me|Say} {if|whether} {it|the sound} is high or low.",
        "{High or low|Low or high}?",
    ),
    "hear": (
        "{Please|Now} {tell me|say} what {you hear|can be heard|it sounds like}.",
        "What {can be heard|is heard|is there to hear|do we hear}{| here| in this recording}?",
        "{Tell me|Say} what you {hear in the audio|hear here|can hear|hear in this sound}.",
        "{Give me|Write} a description of {the sound|the audio|what you hear}.",
        "What {do|can} you hear{| here| in the audio| in this clip}?",
        "What did you hear?",
        "Describe {the|this|my} {sound|audio|clip|recording|noise}.",
        "Describe what you {hear|can hear|heard}.",
        "{What is|What's} {this sound|the sound|in the audio|this|that|it|to hear|in the recording}?",
        "What sound is {this|it|that|in the audio}?",
        "{Tell me|Say} what {you hear|the sound is|is in the audio|you heard}.",
        "{Can you|Could you} {please |}describe {the|this} {sound|audio|recording}?",
        "{Which|What} sounds {are there|do you hear|are in it}?",
        "{Listen|Listen to this|Listen and tell me}.",
        "What kind of {sound|noise|tone} {is it|is this|do you hear}?",
    ),
    "sweep": (
        "{Is it|Was it|Do you hear it} {rising or falling|falling or rising|going up or down}?",
        "Does {the tone|it|the pitch} {rise, or does it fall|fall, or does it rise|go up, or does it go down}?",
        "{Does|Did} the {sound|pitch} {climb or drop|become higher or lower}?",
        "Does {the pitch|the tone|it|the sound} {rise or fall|fall or rise|go up or down|go down or up|get higher or lower}?",
        "Is {the tone|the pitch|it} {rising or falling|falling or rising|going up or down|going down or up}?",
        "{Tell me|Say} {if|whether} {the tone|the pitch} {rises or falls|goes up or down}.",
        "How does {the pitch|the tone|it} {change|develop|go}?",
    ),
    "same shape": (
        "{Is|Was} the shape {the same|equal} in {the two images|both of them|both photos|these pictures}?",
        "{Do|Did} {the two|these two} {pictures|photos} {show|have} {the same|one} shape?",
        "{Are|Were} {both|the two} of the same shape?",
        "{Is it|Is there} one shape in both?",
        "{Same|Equal} shapes?",
        "Are {the|both|these|the two|these two} shapes the same?",
        "{Do|Can} the {two |}{images|pictures|photos} show the same shape?",
        "{Is it|Is this|Do you see} the same shape in {both images|both pictures|the two pictures}?",
        "Are {these|they|those|both} the same shape?",
        "{Do|Did} both {images|photos} {show|have|contain} the same shape?",
        "Is the shape {the same|equal|different}{| in both images| in both pictures| here}?",
        "Do the shapes {match|differ|agree}?",
        "{Tell me|Say} {if|whether} the shapes are {the same|equal|different}.",
        "Do they have the same shape?",
    ),
    "same colour": (
        "Is the {color|colour} {of the two|of these|of both things|of the two shapes} {the same|equal}?",
        "{Is there|Do we see} {one|the same} {color|colour} in {both|the two|both images}?",
        "{Are|Were} {both|the two} of the same {color|colour}?",
        "{Same|Equal} {colors|colours}?",
        "Are {the|both|these|the two} {colors|colours} the same?",
        "Do {the|both|these|the two|they} {shapes |}have the same {color|colour}?",
        "Are {both|the|these|the two} shapes the same {color|colour}?",
        "Is the {color|colour} {the same|equal|different}{| in both images| in both pictures}?",
        "{Do|Did} the {two |}{images|pictures} {show|have|use} the same {color|colour}?",
        "Do the {colors|colours} {match|differ|agree}?",
        "{Tell me|Say} {if|whether} the {colors|colours} are {the same|equal|different}.",
        "{Is it|Is this} the same {color|colour}?",
    ),
    "same": (
        "{Do|Did} {they|these|both|the two pictures} {show the same|match|seem the same|look alike|look equal}?",
        "{Are|Were} the {shapes and colors|two things|two objects} the same?",
        "{Is|Was} {the second|the other one} the same{| as the first}?",
        "{Same|Equal|Identical}?",
        "Are {they|these|both|the two|the images|the pictures|the two pictures} {the same|equal|alike|identical}?",
        "{Is it|Is this} the same {picture|thing|in both}?",
        "Do {both|the two|the} {images|pictures} show the same{| thing| object}?",
    ),
    "compare": (
        "{Please|Now} {compare|describe} {them|these|both}.",
        "What {can be seen|is shown|do we see|is there} in {both|each|the two pictures|each picture|both images}?",
        "{Tell me|Say} what {is in both|the two show|is in the two pictures}.",
        "{Compare|Describe} {the|both|these|the two|these two} {images|pictures|photos}.",
        "Compare {them|both|the two}.",
        "What {is|do you see|can you see} in {the two|both|the|these two|each of the} {images|pictures}?",
        "What {do you see|can you see|is shown|is this|is there}?",
        "{What is|What's} in each {image|picture|photo}?",
        "What do {the|both|these|the two} {images|pictures|photos} show?",
        "{What is|What's|Tell me|Name} the difference{| between the images| between them| between both pictures}.",
        "{How do|In what do} {they|the images|the pictures} differ?",
        "{Tell me|Say} what {the images show|both images show|is in each picture|you see}.",
        "{Can you|Could you} {please |}{compare|describe} {the|both} {images|pictures}?",
    ),
    "one of two": (
        "What {can be seen|do we see|is there|is shown|can I see} in the <o> {image|picture|one}?",
        "{And|So,} what is the <o> {one|image|picture|photo}?",
        "{Say|Can you tell me} what the <o> {one|image|picture} {is|shows}.",
        "{What is|What's|What do you see} in the <o> {image|picture|photo}?",
        "What does the <o> {image|picture|photo|one} show?",
        "Describe {the <o> image|the <o> picture|the <o> one}.",
        "{Tell me|Say} what {the <o> image shows|is in the <o> picture}.",
    ),
    "both": (
        "{Please|Now} {tell me|say} what you {see and what you hear|hear and what you see}.",
        "What is {shown and what is heard|to see and what is to hear}?",
        "{Please|Can you|Could you} describe {both|the picture and the sound|what you see and hear|everything}{|, please}.",
        "{Look and listen|Listen and look}.",
        "Describe {the image and the sound|the picture and the sound|both|everything|what you see and hear}.",
        "What do you {see and hear|hear and see}{| here}?",
        "{Tell me|Say} what you {see and hear|hear and see}.",
        "{What is|What's} {in the image and in the audio|there to see and to hear}?",
        "What do the {picture|image} and the {sound|audio} {show|contain}?",
    ),
}

UNSEEN: dict[str, tuple[str, ...]] = {
    "shape": (
        "Which shape is in this picture?",
        "Can you name the shape?",
        "What's the shape here?",
    ),
    "colour": ("Can you tell me the colour of the <s>?", "The <s> has which color?"),
    "colour it": ("Can you name the color?",),
    "shape of": ("Can you name the <c> shape?",),
    "count": (
        "What is the number of shapes?",
        "How many shapes are in this photo?",
        "Number of shapes?",
    ),
    "how many": ("How many <ss> are in this photo?",),
    "where": ("Where do you see the <n>?", "Tell me where the <n> is.", "Where's the <n>?"),
    "at": ("What is there <w>?", "What can I see <w>?"),
    "is": ("Does the image show <an>?", "Is there <an> in this picture?", "Have you seen <an>?"),
    "describe": (
        "Please describe this picture.",
        "Tell me what is in the image.",
        "What am I looking at?",
    ),
    "direction": ("In what direction is the <s> going?", "Tell me which way it moves."),
    "event": ("Please describe this clip.", "Tell me what happens in this video."),
    "moves": ("Can you see it move?",),
    "moving shape": ("What shape is in this video?",),
    "moving colour": ("Which color is the thing that moves?",),
    "beeps": ("What is the number of beeps?", "How many beeps can be heard?", "Number of beeps?"),
    "pitch": (
        "Tell me if the tone is high or low.",
        "High or low tone?",
        "Would you call it high or low?",
    ),
    "hear": ("Please describe what you hear.", "Tell me what you hear in this clip."),
    "sweep": ("Does the sound rise or does it fall?",),
    "same shape": (
        "Do both pictures show the same shape?",
        "Is the shape the same in these two images?",
    ),
    "same colour": ("Is the colour of both shapes the same?", "Is it one color in both?"),
    "same": ("Do they look the same?",),
    "compare": ("Please compare these two images.", "What can be seen in both pictures?"),
    "one of two": ("What can you see in the <o> photo?",),
    "both": ("Please describe what you see and what you hear.",),
}

_CHOICE = re.compile(r"\{([^{}]*)\}")


def sampled(key: str, rng: random.Random, *, unseen: bool = False, **filled: str) -> str:
    """One wording. In training some are put more freely, but never as one that is held back."""
    question = _one(rng.choice((UNSEEN if unseen else TRAINED)[key]), rng)
    if not unseen:
        freely = styles.styled(question, rng)
        question = question if plain(freely) in HELD_BACK else freely
    for name, value in filled.items():
        question = question.replace(f"<{name}>", value)
    return question


def _one(pattern: str, rng: random.Random) -> str:
    return _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), pattern)


def plain(question: str) -> str:
    """Words alone: what stays the same in small letters, with other marks."""
    return " ".join(re.findall(r"[a-z<>']+", question.lower()))


HELD_BACK = frozenset(plain(question) for rows in UNSEEN.values() for question in rows)


def all_of(key: str) -> set[str]:
    """Every wording of training, names not filled in."""
    found: set[str] = set()
    for pattern in TRAINED[key]:
        parts = [
            part.split("|") if i % 2 else [part] for i, part in enumerate(_CHOICE.split(pattern))
        ]
        found |= {"".join(choice) for choice in itertools.product(*parts)}
    return found
